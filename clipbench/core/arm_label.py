"""The label of a strategy, such as `norm(per=tensor, exclude=[head])`, taken apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

OPEN, CLOSE = "([{", ")]}"


@dataclass(frozen=True)
class ArmLabel:
    """The name of a rule, and the text of each option that a user set, without the threshold."""

    name: str
    options: dict[str, str]

    @classmethod
    def parse(cls, label: str) -> ArmLabel:
        name, _, rest = label.partition("(")
        pairs = (part.partition("=") for part in parts(rest[:-1])) if rest else ()
        return cls(name, {option.strip(): value.strip() for option, _, value in pairs})


def parts(text: str) -> Iterator[str]:
    """Yield the parts between commas that are in no brackets."""
    start = depth = 0
    for position, sign in enumerate(text):
        depth += (sign in OPEN) - (sign in CLOSE)
        if sign == "," and not depth:
            yield text[start:position]
            start = position + 1
    yield text[start:]
