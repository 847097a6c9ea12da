"""What a report is about: the trials of a plan, the options of the report, and the command that trains them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from clipbench.analysis.report_model import ReportOptions
from clipbench.config.resolved_yaml import resolved
from clipbench.errors import Place
from clipbench.planning.plan import Plan
from clipbench.plugins.registry import UNCLIPPED


@dataclass(frozen=True)
class Subject:
    """Everything that a report needs from a plan; the results come from the store."""

    name: str
    options: ReportOptions  # `planned` names every trial
    seeds: tuple[int, ...]
    command: str  # the command that trains these trials
    yaml: str  # the experiment with all defaults

    @property
    def ids(self) -> Collection[str]:
        return (self.options.planned or {}).keys()

    def read_from(self, file: Path) -> Subject:
        """The same subject, read from another file with the same content."""
        place = Place(str(file), key=self.options.place.key)
        return replace(self, options=replace(self.options, place=place))


def subject_of(plan: Plan, command: str = "run") -> Subject:
    """The subject of the trials of a plan: all of a grid, or those that a search has confirmed.

    Trials and seeds are those of the plan's cohorts, even where these differ from the YAML: `subject_of(replace(plan,
    cohorts=...), "sweep")`.
    """
    experiment = plan.experiment
    wanted = experiment.report
    trials = plan.trials
    options = ReportOptions(
        metric=wanted.metric,
        baseline=wanted.baseline or UNCLIPPED,
        margin=wanted.margin,
        tuned=wanted.tuned,
        higher=plan.higher,
        examples=plan.examples,
        norm_rules=plan.norm_rules,
        constants=plan.constants,
        planned={trial.id: f"{trial.arm} seed {trial.seed}" for trial in trials},
        place=experiment.place("report.metric"),
        claims=tuple(zip(experiment.claims, experiment.expectations, strict=True)),
    )
    seeds = tuple(dict.fromkeys(trial.seed for trial in trials))
    return Subject(experiment.name, options, seeds, f"clipbench {command} {experiment.name}.yaml", resolved(experiment))
