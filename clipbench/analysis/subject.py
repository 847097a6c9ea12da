"""Subject: what a report is of. Trials by their names, what is asked of them, and how to train them again."""

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
    """All that a report needs to know of a plan; the numbers come from the store."""

    name: str
    options: ReportOptions  # `planned` names every trial that the report is of
    seeds: tuple[int, ...]
    command: str  # that trains these trials
    yaml: str  # the experiment, every default filled in

    @property
    def ids(self) -> Collection[str]:
        return (self.options.planned or {}).keys()

    def read_from(self, file: Path) -> Subject:
        """The same, of another file that says the same."""
        place = Place(str(file), key=self.options.place.key)
        return replace(self, options=replace(self.options, place=place))


def subject_of(plan: Plan, command: str = "run") -> Subject:
    """The subject of a plan's trials, whichever they are: all of a grid, or the few that a search has confirmed.

    Its trials and seeds are the plan's own, so a plan whose cohorts hold other trials or other seeds than those of the
    YAML (`replace(plan, cohorts=...)`) is reported as it is: `publish(subject_of(plan, "sweep"), store)`. `command` is
    what trains them.
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
        norm_rules=plan.norm_rules,
        planned={trial.id: f"{trial.arm} seed {trial.seed}" for trial in trials},
        place=experiment.place("report.metric"),
        claims=tuple(zip(experiment.claims, experiment.expectations, strict=True)),
    )
    seeds = tuple(dict.fromkeys(trial.seed for trial in trials))
    return Subject(experiment.name, options, seeds, f"clipbench {command} {experiment.name}.yaml", resolved(experiment))
