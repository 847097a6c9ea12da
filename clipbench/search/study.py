"""One contender's study: which points are tried next, and what became of those that were."""

from __future__ import annotations

import itertools
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from clipbench.core.trial import Trial, Value
from clipbench.planning.contender import Contender
from clipbench.search import concurrency, samplers_and_pruners, scoring
from clipbench.search.optuna_values import heard, suggest, told
from clipbench.search.scoring import PointScore
from clipbench.search.settings import SearchSettings
from clipbench.store.sweep_file import PointState

# What is kept of a trial, and of a study, beside what Optuna keeps.
OWNER, ORIGIN, OUTCOME, REPEATED = "owner", "origin", "outcome", "repeated"
OPENED, ALIVE = "opened", "alive"
TRIES = 8  # to find a point that was not tried
YAML, PILOT, SEARCHED = "yaml", "pilot", "search"  # where a point comes from
STATES: dict[TrialState, PointState] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
FINISHED = tuple(STATES)
MOST_COUNTED = 4096  # points among which one that was not tried is looked for by going through all
SEVERAL = 2


@dataclass(frozen=True)
class Point:
    """Values of all hyperparameters, and the trials that try them."""

    number: int
    values: Mapping[str, Value]
    trials: tuple[Trial, ...]
    origin: str


@dataclass(frozen=True)
class TriedPoint:
    """A point and what it came to; `outcome` is None while it is under way."""

    point: Point
    state: PointState
    outcome: PointScore | None


@dataclass
class Study:
    """Asks Optuna, tells Optuna. A point that a killed process had asked for is asked again, not lost.

    Whoever asks or takes over must be alone with the storage.
    """

    contender: Contender
    search: SearchSettings
    storage: BaseStorage
    _owner: str = field(default_factory=concurrency.this_process, init=False)

    def __post_init__(self) -> None:
        self.name = f"{self.search.experiment}: {self.contender.label} {self.search.content(self.contender)}"
        directions = [
            StudyDirection.MAXIMIZE if objective.higher else StudyDirection.MINIMIZE
            for objective in self.search.objectives
        ]
        self._study = optuna.create_study(
            storage=self.storage,
            study_name=self.name,
            directions=directions,
            pruner=samplers_and_pruners.pruner(self.search.pruner, self.contender.templates[0].train.epochs),
            load_if_exists=True,
        )
        self._trials: dict[int, optuna.trial.Trial] = {}
        self._reported: defaultdict[int, set[int]] = defaultdict(set)  # steps, by the number of the point
        self._points: dict[int, Point] = {}  # by their numbers, whose values stay as they are

    @property
    def total(self) -> int:
        """Points that will have been tried in the end; fewer where there are no more."""
        size = self.contender.size
        return self.search.trials if size is None else min(size, self.search.trials)

    @property
    def left(self) -> int:
        """Points that nobody has asked for yet."""
        return max(0, self.total - len(self._frozen(TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)))

    @property
    def unfinished(self) -> int:
        """Points that are still to be tried, or under way."""
        return self.left + len(self._frozen(TrialState.RUNNING))

    @property
    def is_opened(self) -> bool:
        """Whether its first points are in the queue."""
        return bool(self._study.user_attrs.get(OPENED))

    def open(self, first: Iterable[tuple[str, Mapping[str, Value]]]) -> None:
        """Put points at the head of the queue, each with its origin; where there are few in all, every one of them."""
        everything = self._every() if (self.contender.size or self.search.trials + 1) <= self.search.trials else ()
        for origin, values in [*first, *((SEARCHED, values) for values in everything)]:
            self._enqueue(origin, values)
        self._study.set_user_attr(OPENED, True)

    def _enqueue(self, origin: str, values: Mapping[str, Value]) -> None:
        params = {param.path: told(param, values[param.path]) for param in self.contender.hyperparameters}
        self._study.enqueue_trial(params, user_attrs={ORIGIN: origin}, skip_if_exists=True)

    def _every(self) -> Iterator[dict[str, Value]]:
        """Every point, where they can be counted."""
        each = [
            param.choices or tuple(range(int(param.low), int(param.high) + 1))
            for param in self.contender.hyperparameters
        ]
        paths = [param.path for param in self.contender.hyperparameters]
        yield from (dict(zip(paths, values, strict=True)) for values in itertools.product(*each))

    @samplers_and_pruners.quietly()
    def ask(self, count: int) -> list[Point]:
        """The next points, at most so many."""
        self._renew_sampler()
        return [self._new_point() for _ in range(min(count, self.left))]

    @samplers_and_pruners.quietly()
    def take_over(self) -> list[Point]:
        """The points that processes which are gone had asked for."""
        orphans = [frozen for frozen in self._frozen(TrialState.RUNNING) if self._is_orphan(frozen)]
        for frozen in orphans:
            self._reported[frozen.number].update(frozen.intermediate_values)
        if orphans:
            self._renew_sampler()
        points = [self._own(optuna.trial.Trial(self._study, frozen._trial_id)) for frozen in orphans]
        return [point for point in points if not self._is_repeated(point)]

    def _renew_sampler(self) -> None:
        asked, seed = len(self._frozen(*TrialState)), samplers_and_pruners.number(self.name, self.search.seeds)
        self._study.sampler = samplers_and_pruners.sampler(self.search.sampler, seed, asked, self._startup())

    def others(self) -> int:
        """Points that other processes, which are alive, have under way."""
        return sum(frozen.number not in self._trials for frozen in self._frozen(TrialState.RUNNING))

    def sign_of_life(self) -> None:
        """For processes on other machines, which cannot see this one."""
        self._study.set_user_attr(f"{ALIVE}:{self._owner}", time.time())

    def report(self, point: Point, step: int, score: float) -> None:
        """What a point comes to so far. One that is trained once more reports what is known already."""
        if step not in self._reported[point.number]:
            self._reported[point.number].add(step)
            self._trials[point.number].report(score, step)

    def should_prune(self, point: Point) -> bool:
        return self._trials[point.number].should_prune()

    @samplers_and_pruners.quietly()
    def tell(self, point: Point, outcome: PointScore) -> None:
        """What became of a point; its numbers are finite, whatever happened to its trials."""
        trial = self._trials.pop(point.number)
        trial.set_constraint("diverged", outcome.diverged_share)
        trial.set_user_attr(OUTCOME, outcome.as_dict())
        if outcome.failed:
            self._study.tell(point.number, state=TrialState.FAIL)
        elif outcome.pruned and self.search.pruner != "wilcoxon":  # whose steps are seeds: the mean over them says more
            self._study.tell(point.number, state=TrialState.PRUNED)
        else:
            self._study.tell(point.number, values=list(outcome.scores))

    def tried(self) -> list[TriedPoint]:
        """Every point that was asked for, in that order."""
        asked = [frozen for frozen in self._frozen(TrialState.RUNNING, *FINISHED) if REPEATED not in frozen.user_attrs]
        paths = {param.path for param in self.contender.hyperparameters}
        return [self._tried(frozen) for frozen in asked if paths <= frozen.params.keys()]  # or it is being asked for

    def worst(self) -> tuple[float, ...]:
        """The worst score of a trial so far, for each objective; NaN where there is none."""
        known = [
            frozen.user_attrs[OUTCOME]["worst"] for frozen in self._frozen(*FINISHED) if OUTCOME in frozen.user_attrs
        ]
        return tuple(
            scoring.worst_of(objective, [worst[number] for worst in known])
            for number, objective in enumerate(self.search.objectives)
        )

    def winner(self) -> TriedPoint | None:
        """The best point that was trained to the end; one in which a trial diverged only where there is no other."""
        complete = [tried for tried in self.tried() if tried.state == "complete" and tried.outcome]

        def rank(tried: TriedPoint) -> tuple[float, ...]:
            assert tried.outcome
            scores = zip(self.search.objectives, tried.outcome.scores, strict=True)
            costs = (-objective.sign * score for objective, score in scores)
            return tried.outcome.diverged_share, *costs, tried.point.number

        return min(complete, key=rank, default=None)

    def pareto(self) -> list[int]:
        """Numbers of the points that no other one beats in every objective; none for a single one."""
        if len(self.search.objectives) < 2:
            return []
        return sorted(frozen.number for frozen in self._study.best_trials)

    def importances(self) -> dict[str, float]:
        """How much of the objective's variation each hyperparameter explains, where there are several."""
        complete = self._frozen(TrialState.COMPLETE)
        if min(len(self.contender.hyperparameters), len(complete)) < SEVERAL:
            return {}
        first = (lambda trial: trial.values[0]) if len(self.search.objectives) > 1 else None
        try:
            return dict(optuna.importance.get_param_importances(self._study, target=first))
        except (ValueError, RuntimeError):  # all scores alike: there is nothing to explain
            return {}

    def _frozen(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _startup(self) -> int:
        """How many points come before a model of the objective. The first ones that were put in the queue lie along
        one hyperparameter, the threshold: where there are others, points at random tell of these."""
        several = len(self.contender.hyperparameters) > 1
        queued = [frozen for frozen in self._frozen(*TrialState) if ORIGIN in frozen.user_attrs]
        return samplers_and_pruners.STARTUP + (len(queued) if several else 0)

    def _new_point(self) -> Point:
        """One that nobody has tried. A sampler may come back to a value, where there are few of them."""
        for _ in range(TRIES):
            point = self._own(self._study.ask())
            if not self._is_repeated(point):
                return point
            self._lead_away()
        return self._own(self._study.ask())

    def _is_repeated(self, point: Point) -> bool:
        """Whether it was tried before; then nobody tries it."""
        others = (each.point for each in self.tried() if each.point.number != point.number)
        if not any(other.values == point.values for other in others):
            return False
        self._trials[point.number].set_user_attr(REPEATED, True)
        self._study.tell(self._trials.pop(point.number), state=TrialState.FAIL)
        return True

    def _lead_away(self) -> None:
        """Put a point that was not tried in the queue, where all can be counted: a sampler may stay where it is."""
        if (self.contender.size or MOST_COUNTED + 1) > MOST_COUNTED:
            return
        tried = [each.point.values for each in self.tried()]
        if untried := [values for values in self._every() if values not in tried]:
            chance = random.Random(samplers_and_pruners.number(self.name, len(tried)))
            self._enqueue(SEARCHED, chance.choice(untried))

    def _own(self, trial: optuna.trial.Trial) -> Point:
        trial.set_user_attr(OWNER, self._owner)
        return self._point(trial)

    def _point(self, trial: optuna.trial.Trial) -> Point:
        params = {param.path: suggest(trial, param) for param in self.contender.hyperparameters}
        self._trials[trial.number] = trial
        return self._made(trial.number, params, trial.user_attrs.get(ORIGIN, SEARCHED))

    def _made(self, number: int, params: Mapping[str, Any], origin: str) -> Point:
        if number not in self._points:
            values = {param.path: heard(param, params[param.path]) for param in self.contender.hyperparameters}
            self._points[number] = Point(number, values, self.contender.trials(values, self.search.seeds), origin)
        return self._points[number]

    def _tried(self, frozen: FrozenTrial) -> TriedPoint:
        point = self._made(frozen.number, frozen.params, frozen.user_attrs.get(ORIGIN, SEARCHED))
        known = frozen.user_attrs.get(OUTCOME)
        outcome = PointScore.read(known) if known and frozen.state.is_finished() else None
        state: PointState = "pruned" if outcome and outcome.pruned else STATES.get(frozen.state, "running")
        return TriedPoint(point, state, outcome)

    def _is_orphan(self, frozen: FrozenTrial) -> bool:
        if frozen.number in self._trials:
            return False
        owner = frozen.user_attrs.get(OWNER)
        beat: Any = self._study.user_attrs.get(f"{ALIVE}:{owner}")
        # Whoever asks is alone until the point is said to be his: one that is nobody's was left by a killed process.
        return owner is None or concurrency.is_gone(owner, beat)
