"""The confirmation of a search: the winners and the baseline are trained on fresh seeds, which it did not use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from clipbench.core.trial import Trial, Value
from clipbench.planning.contender import Contender
from clipbench.planning.plan import Cohort, Plan
from clipbench.search.settings import SearchSettings
from clipbench.search.stored_values import from_stored
from clipbench.store.sweep_file import SearchedPoint, SweepDocument

RATE = "lr"
CohortKey = tuple[object, ...]


@dataclass(frozen=True)
class Finalist:
    """A contender with the values of its best point; without values if it has no hyperparameters."""

    contender: Contender
    values: Mapping[str, Value]

    def trials(self, search: SearchSettings, **values: Value) -> tuple[Trial, ...]:
        """Return the trials that confirm it, where `values` replace its own."""
        return self.contender.trials({**self.values, **values}, search.confirm_seeds)


def finalists(contenders: Sequence[Contender], document: SweepDocument) -> list[Finalist]:
    """Return the contenders that a search found a best point of, and those without hyperparameters."""
    winners = {each.label: each.winning for each in document.contenders}
    found = [(contender, winners[contender.label]) for contender in contenders]
    return [
        Finalist(contender, _values(contender, best))
        for contender, best in found
        if best or not contender.hyperparameters
    ]


def _values(contender: Contender, best: SearchedPoint | None) -> dict[str, Value]:
    return {param.path: from_stored(param, best.values[param.path]) for param in contender.hyperparameters if best}


def confirming_ids(found: Sequence[Finalist], search: SearchSettings) -> dict[str, tuple[str, ...]]:
    """Return the ids of the trials that confirm each finalist, by its label."""
    return {each.contender.label: tuple(trial.id for trial in each.trials(search)) for each in found}


def confirmed_finalists(
    search: SearchSettings, contenders: Sequence[Contender], document: SweepDocument
) -> list[Finalist] | None:
    """Return the finalists that an earlier search confirmed, or None if the YAML now asks for another search."""
    if {each.label for each in document.contenders} != {contender.label for contender in contenders}:
        return None
    found, confirmed = finalists(contenders, document), {each.label: each.confirmed for each in document.contenders}
    return found if confirming_ids(found, search) == {label: ids for label, ids in confirmed.items() if ids} else None


def confirmation_plan(plan: Plan, search: SearchSettings, finalists: Sequence[Finalist]) -> Plan:
    """Return a plan of the confirming trials, in the cohorts of the experiment's plan."""
    trials = [trial for finalist in finalists for trial in finalist.trials(search)]
    trials += _baseline(plan, search, trials)
    if plan.experiment.report.tuned:
        trials += _at_equal_rates(plan, search, finalists)
    cohorts = cohorts_by_key(plan)
    chosen: dict[str, dict[str, Trial]] = {}
    for trial in trials:
        chosen.setdefault(cohorts[cohort_key(trial)].id, {})[trial.id] = trial
    together = tuple(
        replace(cohort, trials=tuple(chosen[cohort.id].values())) for cohort in plan.cohorts if cohort.id in chosen
    )
    sweep = plan.experiment.sweep
    at_own_rates = bool(sweep and sweep.searches_optimizers)
    report = plan.experiment.report.model_copy(update={"tuned": at_own_rates})
    experiment = replace(
        plan.experiment,
        seeds=search.confirm_seeds,
        arms=tuple(dict.fromkeys(trial.clip for trial in trials)),
        optimizers=tuple(dict.fromkeys(trial.optimizer for trial in trials)),
        scripts=tuple(dict.fromkeys(trial.script for trial in trials)),
        report=report,
    )
    return replace(plan, experiment=experiment, cohorts=together)


def _baseline(plan: Plan, search: SearchSettings, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials of the report's baseline, if it is an arm that is not among the finalists."""
    name = plan.experiment.report.baseline
    if any(name in (trial.arm, trial.strategy, trial.clip.name) for trial in trials):
        return []
    named = [trial for trial in plan.trials if trial.arm == name]
    first = {replace(trial, seed=0): trial for trial in named}
    return [replace(trial, seed=seed) for trial in first.values() for seed in search.confirm_seeds]


def cohorts_by_key(plan: Plan) -> dict[CohortKey, Cohort]:
    """Return the cohorts by what their trials share."""
    return {cohort_key(cohort.trials[0]): cohort for cohort in plan.cohorts}


def cohort_key(trial: Trial) -> CohortKey:
    """Return what the trials of a cohort share: one program trains them."""
    return trial.data, trial.model, trial.train, trial.clip.as_dict().get("scope", "batch")


def _at_equal_rates(plan: Plan, search: SearchSettings, finalists: Sequence[Finalist]) -> list[Trial]:
    """Return the finalists' trials at the learning rate of the best baseline of their setting."""
    searched = [(each, each.contender.setting) for each in finalists if RATE in each.values]
    baseline = plan.experiment.report.baseline
    rates = {setting: each.values[RATE] for each, setting in searched if each.contender.name == baseline}
    fair = [each.trials(search, **{RATE: rates[setting]}) for each, setting in searched if setting in rates]
    return [trial for trials in fair for trial in trials]
