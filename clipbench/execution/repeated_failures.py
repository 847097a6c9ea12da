"""Trials of a script that need not be tried: all others with the same options have failed in the same way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clipbench.execution.protocol import Event

if TYPE_CHECKING:
    from clipbench.core.trial import Trial
    from clipbench.planning.plan import Chunk

ENOUGH = 4  # failures


@dataclass
class _Outcomes:
    """How trials with the same options of the script have ended."""

    arms: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)  # empty of a trial that has not failed
    left_out: list[Chunk] = field(default_factory=list)

    @property
    def are_hopeless(self) -> bool:
        return len(self.errors) >= ENOUGH and len(self.arms) > 1 and len(set(self.errors)) == 1 and bool(self.errors[0])


class RepeatedFailures:
    """Notes how trials end, and says which of the others have nothing to hope for."""

    def __init__(self) -> None:
        self._outcomes: defaultdict[Any, _Outcomes] = defaultdict(_Outcomes)

    def note(self, trial: Trial, error: str = "") -> None:
        """Note that a trial has ended."""
        found = self._outcomes[trial.script]
        found.arms.add(trial.arm)
        found.errors.append(error)

    def leaves_out(self, chunk: Chunk) -> bool:
        """Return whether the trial of a chunk is not to be started, and remember it if so."""
        found = self._outcomes[chunk.trials[0].script]
        if chunk.attempt == 1 and found.are_hopeless:
            found.left_out.append(chunk)
            return True
        return False

    def events(self) -> Iterator[Event]:
        """Say of which trials this was so."""
        for found in self._outcomes.values():
            if found.left_out:
                first, count = found.left_out[0], len(found.left_out)
                script = first.trials[0].script
                options = ", ".join(f"{name} {value}" for name, value in script.options) if script else ""
                which = f"{count} more {'trial was' if count == 1 else 'trials were'} not started"
                which += f" with {options}" if options else ""
                why = f"all {len(found.errors)} before, of {len(found.arms)} arms, failed in the same way"
                steps = sum(chunk.lane_steps for chunk in found.left_out)
                yield Event(first, lane_steps=steps, note=f"{which}: {why} ({found.errors[0].rstrip('.')}).")
