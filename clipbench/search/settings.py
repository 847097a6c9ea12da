"""The settings of a search: the `sweep` section of the YAML with its defaults filled in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from clipbench.config.sweep_section import Sweep, listed
from clipbench.core import measures
from clipbench.core.trial import digest
from clipbench.errors import InputError
from clipbench.planning.contender import Contender
from clipbench.planning.plan import Plan
from clipbench.store.sweep_file import SearchObjective

LAST_SEED = 2**32 - 1  # torch takes seeds of 32 bits
LOSS = "train/loss"
STORED = 2  # version of what is stored of a study
NO_VALIDATION = "the objective needs validation data, and there are none."


@dataclass(frozen=True)
class SearchSettings:
    """Everything that is fixed before the first point."""

    experiment: str
    objectives: tuple[SearchObjective, ...]
    trials: int  # total points per contender
    batch: int  # points per contender and round
    sampler: str
    pruner: str
    seeds: tuple[int, ...]
    confirm_seeds: tuple[int, ...]
    timeout: float | None = None  # seconds of searching

    def study_name(self, contender: Contender) -> str:
        """Return the name of a contender's study, with a hash of everything that scores depend on."""
        objectives = [[each.name, each.higher] for each in self.objectives]
        content = digest([STORED, contender.content, list(self.seeds), objectives], 8)
        return f"{self.experiment}: {contender.label} {content}"


def search_settings(plan: Plan, trials: int | None = None) -> SearchSettings:
    """Return the settings of an experiment's search; `trials` overrides the YAML."""
    sweep = plan.experiment.sweep or Sweep(search={})
    seeds = _search_seeds(plan.experiment.seeds, sweep.seeds)
    objectives = _objectives(plan, sweep)
    _check_measured(plan, objectives)
    return SearchSettings(
        experiment=plan.experiment.name,
        objectives=objectives,
        trials=trials or sweep.trials,
        batch=sweep.batch,
        sampler=sweep.sampler,
        pruner=sweep.pruner or _pruner(plan, objectives),
        seeds=seeds,
        confirm_seeds=fresh_seeds({*plan.experiment.seeds, *seeds}, sweep.confirm_seeds),
        timeout=sweep.timeout,
    )


def fresh_seeds(used: Collection[int], count: int) -> tuple[int, ...]:
    """Return seeds that were not used: the next numbers. They confirm the winners."""
    first = max(used) + 1
    if first + count - 1 <= LAST_SEED:
        return tuple(range(first, first + count))
    free = (seed for seed in range(LAST_SEED + 1) if seed not in used)
    return tuple(next(free) for _ in range(count))


def _search_seeds(seeds: Sequence[int], count: int) -> tuple[int, ...]:
    """Return the seeds of the YAML, whose trials `run` may have trained, and more if these are too few."""
    missing = count - len(seeds)
    return (*seeds[:count], *(fresh_seeds(seeds, missing) if missing > 0 else ()))


def _objectives(plan: Plan, sweep: Sweep) -> tuple[SearchObjective, ...]:
    names = listed(sweep.objective) or (_default_objective(plan),)
    known = [direction == "maximize" for direction in listed(sweep.direction)]
    known = known or [bool(measures.higher_is_better(name, plan.higher)) for name in names]
    return tuple(SearchObjective(name, higher) for name, higher in zip(names, known, strict=True))


def _default_objective(plan: Plan) -> str:
    """Return the measure by which reports choose thresholds: on validation data, or the loss if there are no data."""
    if all(trial.data is None and trial.script is None for trial in plan.trials):
        return LOSS
    metric = plan.metric.partition("/")[2]
    return f"val/{metric if metric in (*plan.higher, 'loss') else next(iter(plan.higher), 'loss')}"


def _pruner(plan: Plan, objectives: Sequence[SearchObjective]) -> str:
    """Return the default pruner: none if no epoch tells a point's score. Folds are trained in separate cohorts."""
    folded = any(trial.data and "fold" in trial.data.as_dict() for trial in plan.trials)
    is_known_early = objectives[0].name.startswith("val/") or objectives[0].name == LOSS
    return "none" if len(objectives) > 1 or folded or not is_known_early else "median"


def _check_measured(plan: Plan, objectives: Sequence[SearchObjective]) -> None:
    for objective in objectives:
        column = measures.final(objective.name)
        if column and column.uses_validation_data and not plan.validates:
            remedy = "Write a split with a validation part, or sweep: {objective: train/loss}."
            raise InputError.at(plan.experiment.place("sweep.objective"), NO_VALIDATION, remedy)
