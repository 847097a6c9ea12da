"""What workers ask while they train, and who answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from clipbench.planning.plan import Chunk


@dataclass(frozen=True, eq=False)
class Question:
    """A chunk at the end of an epoch, counted from 1: which of its trials shall not go on?

    `measured` is what is known of each trial: the measures of this epoch, `train/loss` and those of validation among
    them; NaN for each of them if it has diverged; what was last known if it has stopped by its own rule. Trials that
    were pruned are not there any more. The last epoch is not asked about.
    """

    chunk: Chunk
    epoch: int
    measured: Mapping[str, Mapping[str, float]]  # trial's id: measure: value


Answer = Collection[str]  # ids of trials to prune
# An answer for each question, in their order. A trial may be asked about twice, if its chunk is trained again: whoever
# advises must say the same of the same trial and epoch, or not mind that only what it says last counts.
Advise = Callable[[Sequence[Question]], Sequence[Answer]]
