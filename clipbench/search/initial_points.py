"""The points that a search begins with: the YAML's own values, and thresholds that a pilot proposes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from clipbench.commands import pilot
from clipbench.commands.progress import Progress
from clipbench.core.trial import Component, Value
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.contender import Contender
from clipbench.planning.plan import Plan
from clipbench.search.study import PILOT, YAML

THRESHOLD = "threshold"
First = tuple[str, Mapping[str, Value]]  # where it comes from, and the values


def first_points(
    pool: WorkerPool, plan: Plan, contenders: Sequence[Contender], seed: int, device: str, progress: Progress
) -> list[list[First]]:
    """For each contender. The pilot trains one seed without clipping; where it fails, there is the YAML alone."""
    given: list[list[First]] = [[(YAML, values) for values in contender.given()] for contender in contenders]
    asking = [contender for contender in contenders if _threshold(contender)]
    if not asking:
        return given
    proposed = dict(_proposed(pool, plan, asking, seed, device, progress))
    return [
        [*points, *((PILOT, values) for values in _piloted(contender, proposed.get(id(contender), ())))]
        for contender, points in zip(contenders, given, strict=True)
    ]


def _threshold(contender: Contender) -> bool:
    return any(param.path == THRESHOLD and not param.choices for param in contender.hyperparameters)


def _proposed(
    pool: WorkerPool, plan: Plan, contenders: Sequence[Contender], seed: int, device: str, progress: Progress
) -> Iterator[tuple[int, list[float]]]:
    """Thresholds for each contender, by what a pilot of its own setting saw."""
    templates = {id(contender): contender.templates[0] for contender in contenders}
    cohorts = []
    for cohort in plan.cohorts:
        known = {trial.id for trial in cohort.trials}
        chosen = [replace(trial, seed=seed, clip=pilot.NONE) for trial in templates.values() if trial.id in known]
        if chosen:
            cohorts.append(replace(cohort, trials=tuple({trial.id: trial for trial in chosen}.values())))
    seen, _ = pilot.gradient_statistics(pool, replace(plan, cohorts=tuple(cohorts), notes=()), device, progress)
    for contender in contenders:
        template = replace(templates[id(contender)], seed=seed, clip=pilot.NONE)
        if template.id in seen:
            rule: Component = templates[id(contender)].clip.without(THRESHOLD)
            (proposal,) = pool.call("clipbench.pilot.propose:propose", [rule], (seen[template.id],))
            yield id(contender), [level.threshold for level in proposal.levels if proposal.by != "search"]


def _piloted(contender: Contender, thresholds: Sequence[float]) -> Iterator[Mapping[str, Value]]:
    """Each threshold beside the first of the YAML's values for everything else."""
    base: Mapping[str, Value] = next(iter(contender.given()), {})
    param = next(param for param in contender.hyperparameters if param.path == THRESHOLD) if thresholds else None
    if param is None or set(base) != {each.path for each in contender.hyperparameters}:
        return
    for threshold in thresholds:
        if param.low <= threshold <= param.high:
            yield {**base, THRESHOLD: param.rounded(threshold)}
