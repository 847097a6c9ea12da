"""What the process that sends tells of itself, a line each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class MirrorState:
    """How far the mirror is. `problem` says what to do if trials are pending."""

    pushed: int = 0
    pending: int = 0
    files: int = 0
    problem: str | None = None
    notes: Sequence[str] = ()  # what is damaged
    done: bool = False
