"""Groups of the parameters of a model, which patterns of their names define: the first group that matches wins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from clipbench.core.trial import Component, Value

MATCH = "match"  # the option of a group that has its patterns


def group_of(match: Sequence[str], **options: Any) -> Component:
    """Return a group of parameters with its options, as one value of an option of a plug-in."""
    shown = ", ".join(f"{name}={_shown(value)}" for name, value in options.items())
    if list(options) == ["threshold"]:
        shown = _shown(options["threshold"])
    return Component.of("", match=tuple(match), label=f"{' '.join(match)}: {shown or 'default'}", **options)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a parameter is meant: `head` names the parameters of a module, `*.bias` all that match."""
    return any(fnmatchcase(name, pattern) or name.startswith(f"{pattern}.") for pattern in patterns)


def patterns_of(group: Component) -> tuple[str, ...]:
    return tuple(str(pattern) for pattern in group[MATCH])  # type: ignore[union-attr]


def number_of_group(name: str, groups: Sequence[Component]) -> int | None:
    """Return the number of the first group that a parameter matches; None if there is none."""
    return next((number for number, group in enumerate(groups) if matches(name, patterns_of(group))), None)


def _shown(value: Value) -> str:
    return "null" if value is None else str(list(value)) if isinstance(value, tuple) else str(value)
