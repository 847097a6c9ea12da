"""The first points of a search: the values of the YAML, and thresholds that a pilot proposes."""

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
InitialPoint = tuple[str, Mapping[str, Value]]  # origin and values


def initial_points(
    pool: WorkerPool, plan: Plan, contenders: Sequence[Contender], seed: int, device: str, progress: Progress
) -> list[list[InitialPoint]]:
    """Return the first points of each contender. The pilot trains one seed without clipping; it may fail."""
    given: list[list[InitialPoint]] = [[(YAML, values) for values in contender.given()] for contender in contenders]
    with_threshold = [contender for contender in contenders if _searches_threshold(contender)]
    if not with_threshold:
        return given
    proposed = dict(_pilot_thresholds(pool, plan, with_threshold, seed, device, progress))
    return [
        [*points, *((PILOT, values) for values in _piloted(contender, proposed.get(id(contender), ())))]
        for contender, points in zip(contenders, given, strict=True)
    ]


def _searches_threshold(contender: Contender) -> bool:
    return any(param.path == THRESHOLD and not param.choices for param in contender.hyperparameters)


def _pilot_thresholds(
    pool: WorkerPool, plan: Plan, contenders: Sequence[Contender], seed: int, device: str, progress: Progress
) -> Iterator[tuple[int, list[float]]]:
    """Yield the thresholds that a pilot of the same setting proposes, for each contender."""
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
    """Yield a point for each threshold, with the first values of the YAML for the other hyperparameters."""
    base: Mapping[str, Value] = next(iter(contender.given()), {})
    param = next(param for param in contender.hyperparameters if param.path == THRESHOLD) if thresholds else None
    if param is None or set(base) != {each.path for each in contender.hyperparameters}:
        return
    for threshold in thresholds:
        if param.low <= threshold <= param.high:
            yield {**base, THRESHOLD: param.rounded(threshold)}
