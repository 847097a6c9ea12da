"""What a search is asked for: the `sweep` section of the YAML with its defaults worked out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from clipbench.config.sweep_section import Sweep
from clipbench.core import measures
from clipbench.core.trial import digest
from clipbench.errors import InputError
from clipbench.planning.contender import Contender
from clipbench.planning.plan import Plan
from clipbench.store.sweep_file import SearchObjective

LAST_SEED = 2**32 - 1  # torch's generators tell no others apart
LOSS = "train/loss"
NO_VALIDATION = "there are no validation data to choose by, and test data choose nothing."


@dataclass(frozen=True)
class SearchSettings:
    """Everything that is decided before the first point is asked for."""

    experiment: str
    objectives: tuple[SearchObjective, ...]
    trials: int  # points of each contender in the end
    batch: int  # points of each contender in a round
    sampler: str
    pruner: str
    seeds: tuple[int, ...]
    confirm_seeds: tuple[int, ...]
    timeout: float | None = None  # seconds of searching

    def content(self, contender: Contender) -> str:
        """A hash of what a study's scores mean: with anything else of it, the study is another one."""
        return digest([contender.content, list(self.seeds), [[each.name, each.higher] for each in self.objectives]], 8)


def search_settings(plan: Plan, trials: int | None = None) -> SearchSettings:
    """The search that an experiment asks for; `trials` goes before what it says."""
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
    """The next numbers after all that were used."""
    first = max(used) + 1
    if first + count - 1 <= LAST_SEED:
        return tuple(range(first, first + count))
    free = (seed for seed in range(LAST_SEED + 1) if seed not in used)
    return tuple(next(free) for _ in range(count))


def _search_seeds(seeds: Sequence[int], count: int) -> tuple[int, ...]:
    """Those of the YAML, so that what `run` trained is known already; more of them where these are too few."""
    missing = count - len(seeds)
    return (*seeds[:count], *(fresh_seeds(seeds, missing) if missing > 0 else ()))


def _objectives(plan: Plan, sweep: Sweep) -> tuple[SearchObjective, ...]:
    names, directions = _listed(sweep.objective), _listed(sweep.direction)
    names = names or (_default_objective(plan),)
    known = [direction == "maximize" for direction in directions] or [_is_higher_better(name, plan) for name in names]
    return tuple(SearchObjective(name, higher) for name, higher in zip(names, known, strict=True))


def _default_objective(plan: Plan) -> str:
    """What thresholds are chosen by in a report too: a validation measure, or the loss where there are no data."""
    if all(trial.data is None for trial in plan.trials):
        return LOSS
    metric = plan.metric.partition("/")[2]
    return f"val/{metric if metric in (*plan.higher, 'loss') else next(iter(plan.higher), 'loss')}"


def _is_higher_better(name: str, plan: Plan) -> bool:
    return bool(measures.higher_is_better(name, plan.higher))


def _listed(value: str | Sequence[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _pruner(plan: Plan, objectives: Sequence[SearchObjective]) -> str:
    """What can judge while training goes on. Folds are data sets of their own, trained apart: none of them knows what
    the point comes to."""
    folded = any(trial.data and "fold" in trial.data.as_dict() for trial in plan.trials)
    is_early = objectives[0].name.startswith("val/") or objectives[0].name == LOSS
    return "none" if len(objectives) > 1 or folded or not is_early else "median"


def _check_measured(plan: Plan, objectives: Sequence[SearchObjective]) -> None:
    for objective in objectives:
        column = measures.final(objective.name)
        if column and column.uses_validation_data and not plan.validates:
            remedy = "Write a split with a validation part, or sweep: {objective: train/loss}."
            raise InputError.at(plan.experiment.place("sweep.objective"), NO_VALIDATION, remedy)
