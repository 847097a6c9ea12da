"""The pilot: train without clipping, take percentiles of the gradients, and propose thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clipbench.commands.find_and_plan import planned
from clipbench.commands.progress import Progress, training_title
from clipbench.commands.session import Settings
from clipbench.core.trial import Component, Trial
from clipbench.errors import InputError
from clipbench.execution.worker_pool import WorkerPool
from clipbench.pilot.results import GradientStatistics, Proposal, RecordedSteps
from clipbench.planning.plan import Plan
from clipbench.plugins.registry import UNCLIPPED

PERCENTS = (1, 10, 50, 90, 99, 100)
NONE = Component.of(UNCLIPPED)


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of one quantity over `count` values."""

    name: str
    count: int
    values: tuple[float, ...]

    @classmethod
    def of(cls, name: str, values: np.ndarray) -> Percentiles:
        found = np.percentile(values, PERCENTS) if values.size else [math.nan] * len(PERCENTS)
        return cls(name, values.size, tuple(map(float, found)))


@dataclass(frozen=True)
class PilotSetting:
    """What was measured and proposed for one setting (data, model, training options, optimizer), over all seeds."""

    trials: tuple[Trial, ...]
    statistics: tuple[GradientStatistics, ...]
    proposals: tuple[Proposal, ...]

    @property
    def diverged(self) -> dict[int, int]:
        """The step, counted from 1, at which a seed diverged, of the seeds that did."""
        return {each.trial.seed: each.diverged_step for each in self.statistics if each.diverged_step}

    @property
    def steps(self) -> int:
        return sum(each.steps for each in self.statistics)

    @property
    def every(self) -> int:
        return max((each.every for each in self.statistics), default=1)

    @property
    def rows(self) -> tuple[Percentiles, ...]:
        return tuple(Percentiles.of(name, values) for name, values in self._quantities())

    def _quantities(self) -> Iterator[tuple[str, np.ndarray]]:
        for place in ("model", "tensor", "unit"):
            yield f"norm, {place}", self._all(place, "n")
        yield "largest element", self._all("model", "m")
        yield "elements", np.concatenate([np.abs(each.elements["g"]).ravel() for each in self.statistics] or [_NOTHING])
        for number, name in enumerate(self.statistics[0].names if self.statistics else ()):
            norms = [each.places["tensor"]["n"][:, number] for each in self.statistics]
            yield f"norm, {name}", np.concatenate(norms)

    def _all(self, place: str, kind: str) -> np.ndarray:
        return np.concatenate([each.places[place][kind].ravel() for each in self.statistics] or [_NOTHING])


_NOTHING = np.empty(0)


@dataclass(frozen=True)
class Pilot:
    """The result of a pilot."""

    plan: Plan
    settings: tuple[PilotSetting, ...]
    failed: Sequence[str]
    device: str


def pilot(
    experiment: str | Path,
    settings: Settings,
    strategies: Sequence[str],
    progress: Progress,
    thresholds: Sequence[float] = (),
) -> Pilot:
    """Train an experiment's data, models and optimizers without clipping, and propose thresholds for strategies.

    With `thresholds`, say what these would do; without strategies, for the first rule on the norm of the gradient.
    """
    with WorkerPool(settings.workers, settings.cluster) as pool:
        plan, device, pool.size = planned(pool, experiment, settings)
        if plan.experiment.is_script:
            remedy = f"Run it with the arm `none`, then `clipbench pilot --from results/{plan.experiment.name}`."
            raise InputError.at(plan.experiment.place("train.script"), "a pilot cannot train a script.", remedy)
        rules = pool.call("clipbench.pilot.propose:candidates", tuple(strategies), plan.experiment.folder)
        if thresholds and not strategies:
            rules = pool.call("clipbench.pilot.norm_rules:on_norm", rules)
        plan = _unclipped(plan)
        for note in plan.notes:
            progress.note(note)
        seen, failed = gradient_statistics(pool, plan, device, progress)
        found = []
        for trials in _settings(plan):
            mine = tuple(seen[trial.id] for trial in trials if trial.id in seen)
            found.append(PilotSetting(trials, mine, proposals(pool, rules, mine, thresholds) if mine else ()))
    return Pilot(plan, tuple(found), failed, device)


def proposals(
    pool: WorkerPool, rules: Sequence[Component], seen: Sequence[RecordedSteps], thresholds: Sequence[float]
) -> tuple[Proposal, ...]:
    """Propose thresholds for rules, or find the effects of given ones."""
    if thresholds:
        return tuple(pool.call("clipbench.pilot.propose:at_thresholds", rules, seen, thresholds))
    return tuple(pool.call("clipbench.pilot.propose:propose", rules, seen))


def _unclipped(plan: Plan) -> Plan:
    cohorts = []
    for cohort in plan.cohorts:
        trials = {trial.id: trial for trial in (replace(trial, clip=NONE) for trial in cohort.trials)}
        cohorts.append(replace(cohort, trials=tuple(trials.values())))
    return replace(plan, cohorts=tuple(cohorts))


def gradient_statistics(
    pool: WorkerPool, plan: Plan, device: str, progress: Progress
) -> tuple[Mapping[str, GradientStatistics], list[str]]:
    """Train a plan's trials; return their gradient statistics by id, and the errors of those that failed."""
    chunks = plan.chunks((), pool.size, device)
    seen: dict[str, GradientStatistics] = {}
    failed = []
    title = training_title(len(plan.trials), 0, "Pilot without clipping")
    progress.start(title, sum(chunk.lane_steps for chunk in chunks), len(plan.trials))
    try:
        for event in pool.train(chunks, device, "clipbench.pilot.record:record_chunk"):
            progress.advance(event.lane_steps)
            if event.error:
                failed.append(f"{len(event.chunk.trials)} trials failed: {event.error}")
            seen |= {statistics.trial.id: statistics for statistics in event.records or ()}
    finally:
        progress.stop()
    return seen, failed


def _settings(plan: Plan) -> Iterator[tuple[Trial, ...]]:
    for cohort in plan.cohorts:
        for optimizer in dict.fromkeys(trial.optimizer for trial in cohort.trials):
            yield tuple(trial for trial in cohort.trials if trial.optimizer == optimizer)
