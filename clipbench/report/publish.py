"""A report of what a store holds of a plan, and its files."""

from __future__ import annotations

from clipbench.plan import Plan
from clipbench.report import delimited, document, figures, html, markdown, provenance, series
from clipbench.report.comparison import compare
from clipbench.report.figures import svg
from clipbench.report.tables import Options, Report
from clipbench.store import Store


def publish(plan: Plan, store: Store) -> Report:
    """Compare the plan's trials, and write the report in every format beside their records."""
    wanted = plan.experiment.report
    options = Options(
        metric=wanted.metric,
        baseline=wanted.baseline or "none",
        margin=wanted.margin,
        higher=plan.higher,
        planned={trial.id: f"{trial.arm} seed {trial.seed}" for trial in plan.trials},
        place=plan.experiment.place("report.metric"),
    )
    records = store.records()
    report = compare(records, options, name=plan.experiment.name)
    drawn = figures.draw(report, series.read(store, report))
    for name, text in (
        ("report.md", markdown.render(report)),
        ("table.csv", delimited.render(report)),
        ("report.json", document.render(report)),
        ("report.html", html.render(report, drawn, provenance.of(plan, records))),
    ):
        store.write_text(name, text)
    _write_figures(store, drawn)
    return report


def _write_figures(store: Store, drawn: list[list[figures.Figure]]) -> None:
    """A file each, of this report only: an older one's would be taken for current."""
    files = {
        f"{f'{number + 1:02}-' if len(drawn) > 1 else ''}{figure.name}.svg": svg.render(figures.sheet(figure))
        for number, setting in enumerate(drawn)
        for figure in setting
    }
    for old in (store.folder / "figures").glob("*.svg"):
        if old.name not in files:
            old.unlink()
    for name, text in files.items():
        store.write_text(f"figures/{name}", text)
