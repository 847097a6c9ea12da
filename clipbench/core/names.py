"""Names that nobody knows, and what was perhaps meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnknownName(LookupError):
    """No plug-in of that name; `remedy` names what is near or known."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.text = text
        self.remedy = remedy


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name, or else all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.6)
    if near:
        return f"Did you mean `{near[0]}`?"
    return f"Known: {', '.join(known)}." if known else "Nothing is known here."
