"""A report of what a store holds of a plan, and its files."""

from __future__ import annotations

from clipbench.plan import Plan
from clipbench.report import delimited, document, markdown
from clipbench.report.comparison import compare
from clipbench.report.tables import Options, Report
from clipbench.store import Store


def publish(plan: Plan, store: Store) -> Report:
    """Compare the plan's trials, and write report.md, report.json and table.csv beside their records."""
    wanted = plan.experiment.report
    options = Options(
        metric=wanted.metric,
        baseline=wanted.baseline or "none",
        margin=wanted.margin,
        higher=plan.higher,
        planned={trial.id: f"{trial.arm} seed {trial.seed}" for trial in plan.trials},
        place=plan.experiment.place("report.metric"),
    )
    report = compare(store.records(), options, name=plan.experiment.name)
    for name, text in (
        ("report.md", markdown.render(report)),
        ("table.csv", delimited.render(report)),
        ("report.json", document.render(report)),
    ):
        store.write_text(name, text)
    return report
