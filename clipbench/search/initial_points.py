"""The first points of a search: the values of the YAML, and thresholds that a pilot proposes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from clipbench.commands import pilot
from clipbench.commands.progress import Progress
from clipbench.core.trial import Value
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.contender import Contender, Hyperparameter
from clipbench.planning.plan import Plan
from clipbench.search.next_point import PILOT, YAML

THRESHOLD = "threshold"
InitialPoint = tuple[str, Mapping[str, Value]]  # origin and values


def initial_points(
    pool: WorkerPool, plan: Plan, contenders: Sequence[Contender], seed: int, device: str, progress: Progress
) -> list[list[InitialPoint]]:
    """Return the first points of each contender. The pilot trains one seed without clipping; it may fail."""
    thresholds = dict(_pilot_thresholds(pool, plan, contenders, seed, device, progress))
    return [
        [
            *((YAML, values) for values in contender.given()),
            *((PILOT, values) for values in _piloted(contender, thresholds.get(contender.label, ()))),
        ]
        for contender in contenders
    ]


def _threshold(contender: Contender) -> Hyperparameter | None:
    """Return the threshold if a range of it is searched."""
    params = contender.hyperparameters
    return next((param for param in params if param.path == THRESHOLD and not param.choices), None)


def _pilot_thresholds(
    pool: WorkerPool, plan: Plan, contenders: Sequence[Contender], seed: int, device: str, progress: Progress
) -> Iterator[tuple[str, list[float]]]:
    """Yield the thresholds that a pilot of the same setting proposes, by the label of the contender."""
    templates = {contender.label: contender.templates[0] for contender in contenders if _threshold(contender)}
    if not templates or plan.experiment.is_script:  # whose gradients only the script sees
        return
    unclipped = {trial.id: replace(trial, seed=seed, clip=pilot.NONE) for trial in templates.values()}
    cohorts = []
    for cohort in plan.cohorts:
        known = {trial.id for trial in cohort.trials}
        chosen = {trial.id: trial for template, trial in unclipped.items() if template in known}
        if chosen:
            cohorts.append(replace(cohort, trials=tuple(chosen.values())))
    seen, _ = pilot.gradient_statistics(pool, replace(plan, cohorts=tuple(cohorts), notes=()), device, progress)
    for label, template in templates.items():
        if statistics := seen.get(unclipped[template.id].id):
            rule = template.clip.without(THRESHOLD)
            (proposal,) = pool.call("clipbench.pilot.propose:propose", [rule], (statistics,))
            yield label, [level.threshold for level in proposal.levels if proposal.by != "search"]


def _piloted(contender: Contender, thresholds: Sequence[float]) -> Iterator[Mapping[str, Value]]:
    """Yield a point for each threshold, with the first values of the YAML for the other hyperparameters."""
    base: Mapping[str, Value] = next(iter(contender.given()), {})
    param = _threshold(contender)
    if param and base:
        yield from ({**base, THRESHOLD: param.rounded(c)} for c in thresholds if param.low <= c <= param.high)
