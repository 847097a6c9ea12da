"""The pilot of a training that exists: percentiles of the gradient norms that it logged, and thresholds for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clipbench.commands.pilot import Percentiles, proposals
from clipbench.commands.progress import Progress
from clipbench.commands.session import Settings
from clipbench.errors import InputError, Place, Problem
from clipbench.execution.worker_pool import WorkerPool
from clipbench.logged_norms import LoggedNorms, read_norms
from clipbench.logged_norms.norm_log import plateau
from clipbench.pilot.norm_rules import recorded
from clipbench.pilot.results import REPLAYED, Proposal


@dataclass(frozen=True)
class LoggedSetting:
    """The norms of one run and column, or of the tensors of one model, and what is proposed for them."""

    norms: LoggedNorms
    proposals: tuple[Proposal, ...]
    remembers: bool  # whether one of the rules has a state

    @property
    def rows(self) -> tuple[Percentiles, ...]:
        whole = Percentiles.of("norm, model", self.norms.whole)
        tensors = np.concatenate(self.norms.trainings)
        if tensors.shape[1] == 1:
            return (whole,)
        each = (Percentiles.of(f"norm, {name}", tensors[:, at]) for at, name in enumerate(self.norms.columns))
        return whole, Percentiles.of("norm, tensor", tensors.ravel()), *each

    @property
    def notes(self) -> Iterator[str]:
        """What a reader should know of the norms."""
        yield from self.norms.notes
        if (value := plateau(self.norms.whole)) is not None:
            yield (
                f"norms look as if they were logged after clipping at about {value:.4g}, because most of the largest "
                "are equal: what thresholds above it would do is not known. Log the norm before clipping."
            )
        if self.norms.every > 1:
            also = ", and rules that remember see only these" if self.remembers else ""
            yield (
                f"norms of about one step in {self.norms.every} are logged: shares are those of the logged steps{also}."
            )
        if self.remembers and max(map(len, self.norms.trainings)) > REPLAYED:
            yield f"rules that remember are replayed on {REPLAYED:,} steps of each training, in four stretches."


@dataclass(frozen=True)
class LoggedPilot:
    """The pilot of a log."""

    settings: tuple[LoggedSetting, ...]
    left_out: tuple[str, ...]  # strategies that need more than norms


def logged_pilot(
    source: str,
    columns: Sequence[str],
    settings: Settings,
    strategies: Sequence[str],
    progress: Progress,
    thresholds: Sequence[float] = (),
    *,
    of_tensors: bool = False,
) -> LoggedPilot:
    """Propose thresholds for the norms of a log, or say what given ones would have done.

    `columns` choose the norms, each a setting; or `of_tensors`, of the tensors of one model.
    """
    progress.phase("Reading norms")
    logged = read_norms(source, columns, settings.results, lambda: settings.uri, of_tensors=of_tensors)
    with WorkerPool(1) as pool:
        rules = pool.call("clipbench.pilot.propose:candidates", tuple(strategies), "")
        rules, left_out = pool.call("clipbench.pilot.norm_rules:split", rules, of_tensors)
        if strategies and left_out:
            raise _more_than_norms(left_out, of_tensors)
        if thresholds and not strategies:
            rules, left_out = pool.call("clipbench.pilot.norm_rules:on_norm", rules), ()
        remembers = pool.call("clipbench.pilot.norm_rules:remember", rules)
        found = []
        for norms in logged:
            progress.phase(f"Replaying rules on {norms.steps:,} norms")
            seen = [recorded(each) for each in norms.trainings]
            found.append(LoggedSetting(norms, proposals(pool, rules, seen, thresholds), remembers))
    for setting in found:
        for note in setting.notes:
            progress.note(f"{setting.norms.label}: {note}" if len(found) > 1 else note)
    return LoggedPilot(tuple(found), tuple(left_out))


def _more_than_norms(rules: Sequence[str], of_tensors: bool) -> InputError:
    text = f"needs more than the norms of the {'tensors' if of_tensors else 'whole gradient'}."
    remedy = "Train a pilot of an experiment: `clipbench pilot EXPERIMENT.yaml`."
    return InputError(Problem(Place(f"--strategy {rule}"), text, remedy) for rule in rules)
