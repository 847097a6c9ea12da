"""The Optuna study of one contender: the next points to train, and the results of the others."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from clipbench.core.trial import Trial, Value
from clipbench.planning.contender import Contender
from clipbench.search import concurrency, scoring
from clipbench.search.samplers_and_pruners import STARTUP, make_pruner, make_sampler, seed_from, without_warnings
from clipbench.search.scoring import PointResult
from clipbench.search.settings import SearchSettings
from clipbench.search.stored_values import from_stored, suggest, to_stored
from clipbench.store.json_document import Scalar
from clipbench.store.sweep_file import PointState, SearchedPoint

# User attributes of a trial and of a study in Optuna.
OWNER, ORIGIN, RESULT, REPEATED = "owner", "origin", "outcome", "repeated"
HAS_FIRST_POINTS, HEARTBEAT = "opened", "alive"
ATTEMPTS = 8  # to get a point from the sampler that was not tried before
YAML, PILOT, SEARCHED = "yaml", "pilot", "search"  # the origin of a point
STATES: dict[TrialState, PointState] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
FINISHED = tuple(STATES)
MOST_LISTED = 4096  # a space of at most so many points is searched for an untried one


@dataclass(frozen=True, eq=False)
class Point:
    """Values of all hyperparameters, and the trials with these values."""

    study: Study
    number: int
    values: Mapping[str, Scalar]  # as they are stored
    trials: tuple[Trial, ...]
    origin: str


@dataclass
class Study:
    """Asks Optuna for points and tells it their results.

    One process at a time calls `ask` and `take_over`. Each point is owned by the process that asked for
    it; `take_over` finds the points of processes that have ended.
    """

    contender: Contender
    search: SearchSettings
    storage: BaseStorage
    _owner: str = field(default_factory=concurrency.process_name, init=False)

    def __post_init__(self) -> None:
        self.name = f"{self.search.experiment}: {self.contender.label} {self.search.content(self.contender)}"
        self._study = optuna.create_study(
            storage=self.storage,
            study_name=self.name,
            directions=["maximize" if objective.higher else "minimize" for objective in self.search.objectives],
            pruner=make_pruner(self.search.pruner, _epochs_of(self.contender.templates[0])),
            load_if_exists=True,
        )
        self._trials: dict[int, optuna.trial.Trial] = {}
        self._points: dict[int, Point] = {}  # by number

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
        """Whether the first points are in the queue."""
        return bool(self._study.user_attrs.get(HAS_FIRST_POINTS))

    def enqueue_first(self, first: Iterable[tuple[str, Mapping[str, Value]]]) -> None:
        """Queue the first points, each with its origin; in a small space, all points."""
        everything = self._all_points() if (self.contender.size or self.search.trials + 1) <= self.search.trials else ()
        for origin, values in [*first, *((SEARCHED, values) for values in everything)]:
            self._enqueue(origin, values)
        self._study.set_user_attr(HAS_FIRST_POINTS, True)

    def _enqueue(self, origin: str, values: Mapping[str, Value]) -> None:
        self._study.enqueue_trial(self._stored(values), user_attrs={ORIGIN: origin}, skip_if_exists=True)

    def _all_points(self) -> Iterator[dict[str, Value]]:
        """All points of a space without ranges of real numbers."""
        each = [
            param.choices or tuple(range(int(param.low), int(param.high) + 1))
            for param in self.contender.hyperparameters
        ]
        paths = [param.path for param in self.contender.hyperparameters]
        yield from (dict(zip(paths, values, strict=True)) for values in itertools.product(*each))

    @without_warnings()
    def ask(self, count: int) -> list[Point]:
        """Return the next points, at most `count`."""
        self._renew_sampler(self.search.sampler)
        return [self._new_point() for _ in range(min(count, self.left))]

    @without_warnings()
    def take_over(self) -> list[Point]:
        """Return the running points of processes that have ended; this process owns them from now on."""
        orphans = [frozen for frozen in self._trials_in(TrialState.RUNNING) if self._is_orphan(frozen)]
        if orphans:
            self._renew_sampler(self.search.sampler)
        points = [self._own(optuna.trial.Trial(self._study, frozen._trial_id)) for frozen in orphans]
        return [point for point in points if not self._is_repeated(point)]

    def _renew_sampler(self, name: str) -> None:
        asked, seed = len(self._trials_in(*TrialState)), seed_from(self.name, self.search.seeds)
        self._study.sampler = make_sampler(name, seed, asked, self._startup())

    def running_elsewhere(self) -> int:
        """The number of points that other processes are running."""
        return sum(frozen.number not in self._trials for frozen in self._trials_in(TrialState.RUNNING))

    def send_heartbeat(self) -> None:
        """Tell processes on other machines that this one is running."""
        self._study.set_user_attr(f"{HEARTBEAT}:{self._owner}", time.time())

    @without_warnings()
    def report(self, point: Point, step: int, score: float) -> None:
        """Report a point's score at a step. A step that was reported before is ignored: the point is trained again."""
        self._trials[point.number].report(score, step)

    def should_prune(self, point: Point) -> bool:
        return self._trials[point.number].should_prune()

    @without_warnings()
    def tell(self, point: Point, result: PointResult) -> None:
        """Store the result of a point. Its scores are finite even if trials diverged."""
        trial = self._trials.pop(point.number)
        trial.set_constraint("diverged", result.diverged_share)
        trial.set_user_attr(RESULT, result.as_dict())
        if result.failed:
            self._study.tell(point.number, state=TrialState.FAIL)
        elif result.pruned and self.search.pruner != "wilcoxon":  # the mean over its seeds is a score
            self._study.tell(point.number, state=TrialState.PRUNED)
        else:
            self._study.tell(point.number, values=list(result.scores))

    def tried(self) -> list[SearchedPoint]:
        """Return all points, in the order in which they were asked for."""
        paths = {param.path for param in self.contender.hyperparameters}
        return [
            self._searched(frozen)
            for frozen in self._trials_in(TrialState.RUNNING, *FINISHED)
            if REPEATED not in frozen.user_attrs and paths <= frozen.params.keys()  # not while another process asks
        ]

    def worst(self) -> tuple[float, ...]:
        """Return the worst score of a trial so far for each objective, or NaN."""
        known = [
            frozen.user_attrs[RESULT]["worst"] for frozen in self._trials_in(*FINISHED) if RESULT in frozen.user_attrs
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

    def _trials_in(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _startup(self) -> int:
        """Return the number of points before the sampler models the objective.

        The queued points mostly vary the threshold: other hyperparameters need random points in addition.
        """
        several = len(self.contender.hyperparameters) > 1
        queued = [frozen for frozen in self._trials_in(*TrialState) if ORIGIN in frozen.user_attrs]
        return STARTUP + (len(queued) if several else 0)

    def _new_point(self) -> Point:
        """Return a point that was not tried before. A sampler may repeat values if there are few."""
        for _ in range(ATTEMPTS):
            point = self._own(self._study.ask())
            if not self._is_repeated(point):
                return point
            self._enqueue_untried()
        self._renew_sampler("random")  # a model that has converged suggests the same point for ever
        return self._own(self._study.ask())

    def _is_repeated(self, point: Point) -> bool:
        """Whether a point was tried before. If so, it is marked as failed."""
        if not any(each.values == point.values for each in self.tried() if each.number != point.number):
            return False
        self._trials[point.number].set_user_attr(REPEATED, True)
        self._study.tell(self._trials.pop(point.number), state=TrialState.FAIL)
        return True

    def _enqueue_untried(self) -> None:
        """Queue an untried point if the space is small: a sampler may suggest the same point again and again."""
        if (self.contender.size or MOST_LISTED + 1) > MOST_LISTED:
            return
        tried = [each.values for each in self.tried()]
        if untried := [values for values in self._all_points() if self._stored(values) not in tried]:
            generator = random.Random(seed_from(self.name, len(tried)))
            self._enqueue(SEARCHED, generator.choice(untried))

    def _own(self, trial: optuna.trial.Trial) -> Point:
        trial.set_user_attr(OWNER, self._owner)
        for param in self.contender.hyperparameters:
            suggest(trial, param)
        self._trials[trial.number] = trial
        return self._point(trial)

    def _point(self, trial: optuna.trial.Trial | FrozenTrial) -> Point:
        """Return the point of a trial of Optuna. It is made once: what it consists of does not change."""
        if trial.number not in self._points:
            params, origin = trial.params, trial.user_attrs.get(ORIGIN, SEARCHED)
            values = {param.path: from_stored(param, params[param.path]) for param in self.contender.hyperparameters}
            trials = self.contender.trials(values, self.search.seeds)
            self._points[trial.number] = Point(self, trial.number, self._stored(values), trials, origin)
        return self._points[trial.number]

    def _stored(self, values: Mapping[str, Value]) -> dict[str, Scalar]:
        return {param.path: to_stored(values[param.path]) for param in self.contender.hyperparameters}

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
        )

    def _is_orphan(self, frozen: FrozenTrial) -> bool:
        if frozen.number in self._trials:
            return False
        owner = frozen.user_attrs.get(OWNER)
        heartbeat: Any = self._study.user_attrs.get(f"{HEARTBEAT}:{owner}")
        # `ask` holds the lock until the owner is set: a point without an owner was left by a killed process.
        return owner is None or concurrency.has_ended(owner, heartbeat)


def _epochs_of(trial: Trial) -> int | None:
    """Return the number of reports of a trial, if it is known: a script makes as many as it likes."""
    return None if trial.script else trial.train.epochs
