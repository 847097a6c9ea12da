"""The winners and the baseline on seeds that the search never saw: a plan like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from clipbench.core.trial import Trial, Value
from clipbench.planning.contender import Contender, Hyperparameter
from clipbench.planning.plan import Cohort, Plan
from clipbench.search.settings import SearchSettings
from clipbench.store.sweep_file import SearchedContender, SweepDocument

RATE = "lr"
Content = tuple[object, ...]


@dataclass(frozen=True)
class Finalist:
    """A contender with what was found for it; without hyperparameters there was nothing to find."""

    contender: Contender
    number: int | None = None  # of its best point
    values: Mapping[str, Value] = field(default_factory=dict)
    is_confirmed: bool = False

    @property
    def is_ready(self) -> bool:
        return self.number is not None or not self.contender.hyperparameters

    def trials(self, search: SearchSettings) -> tuple[Trial, ...]:
        """Those that confirm it."""
        return self.contender.trials(self.values, search.confirm_seeds) if self.is_ready else ()


def recalled(search: SearchSettings, contenders: Sequence[Contender], known: SweepDocument) -> list[Finalist] | None:
    """What an earlier search confirmed; None where it is not the search that the YAML asks for now."""
    by_label = {each.label: each for each in known.contenders}
    if set(by_label) != {contender.label for contender in contenders}:
        return None
    finalists = [_recalled(contender, by_label[contender.label]) for contender in contenders]
    trials = [tuple(trial.id for trial in finalist.trials(search)) for finalist in finalists]
    return finalists if trials == [by_label[contender.label].confirmed for contender in contenders] else None


def _recalled(contender: Contender, known: SearchedContender) -> Finalist:
    winner = known.winning
    values = (
        {param.path: _value(param, winner.values[param.path]) for param in contender.hyperparameters} if winner else {}
    )
    return Finalist(contender, known.winner, values, is_confirmed=True)


def _value(param: Hyperparameter, known: object) -> Value:
    """A list is a text in a file."""
    if not param.choices:
        return param.rounded(known)  # type: ignore[arg-type]  # a number, or the trial has another name
    return next((choice for choice in param.choices if choice == known or str(choice) == known), None)


def confirming(plan: Plan, search: SearchSettings, finalists: Sequence[Finalist]) -> Plan:
    """The trials that decide, grouped into the cohorts of the experiment's plan."""
    trials = [trial for finalist in finalists for trial in finalist.trials(search)]
    trials += _baseline(plan, search, trials)
    if plan.experiment.report.tuned:
        trials += [trial for finalist in finalists for trial in _at_equal_rates(finalist, finalists, plan, search)]
    cohorts = by_content(plan)
    chosen: dict[str, dict[str, Trial]] = {}
    for trial in trials:
        chosen.setdefault(cohorts[content_of(trial)].id, {})[trial.id] = trial
    together = tuple(
        replace(cohort, trials=tuple(chosen[cohort.id].values())) for cohort in plan.cohorts if cohort.id in chosen
    )
    sweep = plan.experiment.sweep
    each_at_its_own = bool(sweep and sweep.searches_optimizers)
    report = plan.experiment.report.model_copy(update={"tuned": each_at_its_own})
    experiment = replace(
        plan.experiment,
        seeds=search.confirm_seeds,
        arms=tuple(dict.fromkeys(trial.clip for trial in trials)),
        optimizers=tuple(dict.fromkeys(trial.optimizer for trial in trials)),
        report=report,
    )
    return replace(plan, experiment=experiment, cohorts=together)


def _baseline(plan: Plan, search: SearchSettings, trials: Sequence[Trial]) -> list[Trial]:
    """The arm that the report compares with, where it is one at a threshold that nobody found."""
    name = plan.experiment.report.baseline
    if any(name in (trial.arm, trial.strategy, trial.clip.name) for trial in trials):
        return []
    named = [trial for trial in plan.trials if trial.arm == name]
    first = {replace(trial, seed=0): trial for trial in named}
    return [replace(trial, seed=seed) for trial in first.values() for seed in search.confirm_seeds]


def by_content(plan: Plan) -> dict[Content, Cohort]:
    """The cohorts, each by what its trials share."""
    return {content_of(cohort.trials[0]): cohort for cohort in plan.cohorts}


def content_of(trial: Trial) -> Content:
    """What trials of a cohort share: one program trains them."""
    return trial.data, trial.model, trial.train, trial.clip.as_dict().get("scope", "batch")


def _at_equal_rates(
    finalist: Finalist, finalists: Sequence[Finalist], plan: Plan, search: SearchSettings
) -> tuple[Trial, ...]:
    """The same at the learning rate that was found for the baseline of its setting."""
    rate = next(
        (
            other.values[RATE]
            for other in finalists
            if other.contender.name == plan.experiment.report.baseline
            and other.contender.setting == finalist.contender.setting
            and RATE in other.values
        ),
        None,
    )
    if rate is None or RATE not in finalist.values:
        return ()
    return finalist.contender.trials({**finalist.values, RATE: rate}, search.confirm_seeds)
