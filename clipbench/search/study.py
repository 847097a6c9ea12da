"""The Optuna study of one contender: the next points to train, and the results of the others."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.pruners import NopPruner
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from clipbench.core.trial import Trial, Value
from clipbench.planning.contender import Contender
from clipbench.search import concurrency, scoring
from clipbench.search.next_point import FirstPoints, NextPoint, next_point, stored
from clipbench.search.samplers_and_pruners import make_pruner, seed_from, without_warnings
from clipbench.search.scoring import PointResult
from clipbench.search.settings import SearchSettings
from clipbench.search.stored_values import distribution_of, from_stored
from clipbench.search.study_copy import StudyCopy
from clipbench.store.json_document import Scalar
from clipbench.store.sweep_file import PointState, SearchedPoint

# User attributes of a trial and of a study in Optuna.
OWNER, ORIGIN, RESULT = "owner", "origin", "outcome"
ROUND = "round"  # the number of its first point, and that after its last
FIRST_POINTS, HEARTBEAT = "first points", "alive"
STATES: dict[TrialState, PointState] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
FINISHED = tuple(STATES)


@dataclass(frozen=True, eq=False)
class Point:
    """Values of all hyperparameters, and the trials with these values."""

    study: Study
    number: int
    round: int  # number of the first point that was asked for together with this one
    values: Mapping[str, Scalar]  # as they are stored
    trials: tuple[Trial, ...]
    origin: str


@dataclass
class Study:
    """Asks Optuna for points and tells it their results.

    What a point is depends on its number, on the points before it and on the results of earlier rounds alone, so that
    a search that was killed asks for the same points. One process at a time calls `ask` and `take_over`. Each point is
    owned by the process that asked for it; `take_over` finds the points of processes that have ended.
    """

    contender: Contender
    search: SearchSettings
    storage: BaseStorage
    owner: str = field(default_factory=concurrency.new_owner)  # of the points that are asked for here

    def __post_init__(self) -> None:
        self.name = self.search.study_name(self.contender)
        maximize, minimize = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        self._directions = [maximize if each.higher else minimize for each in self.search.objectives]
        self._pruner = make_pruner(self.search.pruner, _epochs_of(self.contender.templates[0]))
        options: dict[str, Any] = {"directions": self._directions, "pruner": NopPruner(), "load_if_exists": True}
        self._study = optuna.create_study(storage=self.storage, study_name=self.name, **options)
        self._copy = self._new_copy(())
        self._others = concurrency.Heartbeats()
        self._points: dict[int, Point] = {}  # by number

    def _new_copy(self, trials: Iterable[FrozenTrial]) -> StudyCopy:
        return StudyCopy(self.name, self._directions, self._pruner, trials)

    @property
    def total(self) -> int:
        """The number of points at the end of the search, at most all that exist."""
        size = self.contender.size
        return self.search.trials if size is None else min(size, self.search.trials)

    @property
    def left(self) -> int:
        """The number of points that no process has asked for yet."""
        return max(0, self.total - len(self._trials_in(TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)))

    @property
    def unfinished(self) -> int:
        """The number of points that are running or still to be asked for."""
        return self.left + len(self._trials_in(TrialState.RUNNING))

    @property
    def has_first_points(self) -> bool:
        """Whether the first points are known."""
        return FIRST_POINTS in self._study.user_attrs

    def set_first(self, first: Iterable[tuple[str, Mapping[str, Value]]]) -> None:
        """Keep the first points to ask for, each with its origin."""
        kept: list[tuple[str, Mapping[str, Scalar]]] = []
        for origin, values in first:
            point = stored(self.contender, values)
            if not any(point == each for _, each in kept):
                kept.append((origin, point))
        self._study.set_user_attr(FIRST_POINTS, kept)

    @property
    def _first(self) -> FirstPoints:
        return [(origin, values) for origin, values in self._study.user_attrs.get(FIRST_POINTS, ())]

    def restore(self, points: Iterable[SearchedPoint]) -> int:
        """Add points that the storage has lost, as points of a process that has ended; return their number."""
        count = before = len(self._trials)
        with suppress(ValueError, TypeError):  # of values that this study cannot have
            for point in points:
                if point.number == count:
                    state = TrialState.FAIL if point.state == "failed" else TrialState.RUNNING
                    self._add(NextPoint(point.values, point.origin), "", (point.round, count), state)
                    count += 1
        return count - before

    def ask(self, count: int) -> list[Point]:
        """Return the next points, at most `count`."""
        first = len(self._trials)
        self._add_round(first, first + min(count, self.left))
        return self._begin(range(first, len(self._trials)))

    def take_over(self) -> list[Point]:
        """Return a round of points whose process has ended; this search owns them from now on.

        The process may have ended while it asked for the round: its other points are asked for now.
        """
        trials = self._trials
        orphans = [frozen for frozen in trials if self._is_orphan(frozen)]
        orphans = [frozen for frozen in orphans if frozen.user_attrs[ROUND] == orphans[0].user_attrs[ROUND]]
        for frozen in orphans:
            self.storage.set_trial_user_attr(frozen._trial_id, OWNER, self.owner)
        numbers = [frozen.number for frozen in orphans]
        if numbers and numbers[-1] == len(trials) - 1:
            self._add_round(*orphans[0].user_attrs[ROUND])
            numbers += range(len(trials), len(self._trials))
        return self._begin(numbers)

    def _add_round(self, first: int, end: int) -> None:
        """Add the points of a round that are missing."""
        sampler, seed = self.search.sampler, seed_from(self.name, self.search.seeds)
        while len(trials := self._trials) < end:
            found = next_point(self.contender, sampler, seed, self._first, trials, self._new_copy)
            self._add(found, self.owner, (first, end))

    def _begin(self, numbers: Sequence[int]) -> list[Point]:
        if numbers:
            self._copy = self._new_copy(self._trials)
        return [self._point(self._trials[number]) for number in numbers]

    def running_elsewhere(self) -> int:
        """The number of points that other processes are running."""
        return sum(frozen.user_attrs[OWNER] != self.owner for frozen in self._trials_in(TrialState.RUNNING))

    def send_heartbeat(self) -> None:
        """Tell processes on other machines that this one is running."""
        self._study.set_user_attr(f"{HEARTBEAT}:{self.owner}", time.time())

    def report(self, point: Point, step: int, score: float) -> None:
        """Report a point's score at a step to the pruner."""
        self._copy.report(point.number, step, score)

    def should_prune(self, point: Point) -> bool:
        return self._copy.should_prune(point.number)

    @without_warnings()
    def tell(self, point: Point, result: PointResult, curve: Mapping[int, float] | None = None) -> None:
        """Store the result of a point, and its scores at each step. Scores are finite even if trials diverged."""
        for step, score in (curve or {}).items():
            self.report(point, step, score)
            if self.search.pruner == "hyperband":  # which notes its decisions, as of points that it has not seen
                self.should_prune(point)
        frozen = self._trials[point.number]
        told = copy.copy(frozen)
        told.system_attrs = self._copy.attributes(point.number)
        told.set_constraint("diverged", result.diverged_share)
        for step, score in (curve or {}).items():
            self.storage.set_trial_intermediate_value(frozen._trial_id, step, score)
        for name, value in told.system_attrs.items():
            if frozen.system_attrs.get(name) != value:
                self.storage.set_trial_system_attr(frozen._trial_id, name, value)
        self.storage.set_trial_user_attr(frozen._trial_id, RESULT, result.as_dict())
        if result.failed:
            self._study.tell(point.number, state=TrialState.FAIL)
        elif result.pruned and self.search.pruner != "wilcoxon":  # the mean over its seeds is a score
            self._study.tell(point.number, state=TrialState.PRUNED)
        else:
            self._study.tell(point.number, values=list(result.scores))

    def tried(self) -> list[SearchedPoint]:
        """Return all points, in the order in which they were asked for."""
        return [self._searched(frozen) for frozen in self._trials_in(TrialState.RUNNING, *FINISHED)]

    def worst(self, point: Point) -> tuple[float, ...]:
        """Return the worst score of a trial in the rounds before that of a point for each objective, or NaN."""
        known = [
            frozen.user_attrs[RESULT]["worst"]
            for frozen in self._trials_in(*FINISHED)
            if RESULT in frozen.user_attrs and frozen.number < point.round
        ]
        return tuple(
            scoring.worst_of(objective, [worst[number] for worst in known])
            for number, objective in enumerate(self.search.objectives)
        )

    def winner(self) -> SearchedPoint | None:
        """Return the best point that was trained to the end, if possible one without diverged trials."""

        def rank(point: SearchedPoint) -> tuple[float, ...]:
            scores = zip(self.search.objectives, point.scores, strict=True)
            costs = (-objective.sign * score for objective, score in scores)
            return point.diverged_share, *costs, point.number

        complete = (point for point in self.tried() if point.state == "complete" and point.scores)
        return min(complete, key=rank, default=None)

    def pareto(self) -> list[int]:
        """Return the numbers of the points on the Pareto front, or an empty list for a single objective."""
        if len(self.search.objectives) < 2:
            return []
        return sorted(frozen.number for frozen in self._study.best_trials)

    def importances(self) -> dict[str, float]:
        """Return the share of the objective's variation that each of several hyperparameters explains."""
        complete = self._trials_in(TrialState.COMPLETE)
        if min(len(self.contender.hyperparameters), len(complete)) < 2:
            return {}
        first = (lambda trial: trial.values[0]) if len(self.search.objectives) > 1 else None
        try:
            return dict(optuna.importance.get_param_importances(self._study, target=first))
        except (ValueError, RuntimeError):  # all scores are equal
            return {}

    @property
    def _trials(self) -> list[FrozenTrial]:
        return self._trials_in(*TrialState)

    def _trials_in(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _add(self, each: NextPoint, owner: str, round: tuple[int, int], state: TrialState = TrialState.RUNNING) -> None:
        """Add a point to the storage, whole or not at all."""
        trial = create_trial(
            state=state,
            params=dict(each.values),
            distributions={param.path: distribution_of(param) for param in self.contender.hyperparameters},
            user_attrs={OWNER: owner, ORIGIN: each.origin, ROUND: round},
            system_attrs=dict(each.attributes),
        )
        self._study.add_trial(trial)

    def _point(self, frozen: FrozenTrial) -> Point:
        """Return the point of a trial of Optuna. It is made once: what it consists of does not change."""
        if frozen.number not in self._points:
            params, known = stored(self.contender, frozen.params), frozen.user_attrs
            values = {param.path: from_stored(param, params[param.path]) for param in self.contender.hyperparameters}
            trials = self.contender.trials(values, self.search.seeds)
            self._points[frozen.number] = Point(self, frozen.number, known[ROUND][0], params, trials, known[ORIGIN])
        return self._points[frozen.number]

    def _searched(self, frozen: FrozenTrial) -> SearchedPoint:
        point, known = self._point(frozen), frozen.user_attrs.get(RESULT)
        result = PointResult.from_dict(known) if known and frozen.state.is_finished() else None
        return SearchedPoint(
            number=point.number,
            values=point.values,
            origin=point.origin,
            state="pruned" if result and result.pruned else STATES.get(frozen.state, "running"),
            scores=result.scores if result else (),
            deviations=result.deviations if result else (),
            diverged=result.diverged if result else 0,
            lanes=result.lanes if result else len(point.trials),
            epochs=result.epochs if result else 0,
            ids=tuple(trial.id for trial in point.trials),
            round=point.round,
        )

    def _is_orphan(self, frozen: FrozenTrial) -> bool:
        owner = frozen.user_attrs[OWNER]
        if frozen.state != TrialState.RUNNING or owner == self.owner:
            return False
        return self._others.has_ended(owner, self._study.user_attrs.get(f"{HEARTBEAT}:{owner}"))


def _epochs_of(trial: Trial) -> int | None:
    """Return the number of reports of a trial, if it is known: a script makes as many as it likes."""
    return None if trial.script else trial.train.epochs
