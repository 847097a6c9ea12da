"""The page of several experiments: ranks, every setting's answer, all claims."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from clipbench.analysis.report_model import Report
from clipbench.analysis.strategy_ranks import NO_CLAIMS, Combined
from clipbench.reporting import answer as answers
from clipbench.reporting.column_meaning import SIZE
from clipbench.reporting.figures import critical_difference
from clipbench.reporting.formats.html.escape import text
from clipbench.reporting.formats.html.page import claim_items, document, headline, tone
from clipbench.reporting.formats.html.pieces import explained, figure
from clipbench.reporting.formats.html.table import badge


def render_combined(combined: Combined) -> str:
    return document("All experiments", "".join(_body(combined)))


def _body(combined: Combined) -> Iterator[str]:
    yield "<header><p class=kicker>Gradient clipping, compared</p><h1>All experiments</h1>"
    yield f"<p class=lead>{explained(combined.size, SIZE)}</p></header>\n"
    yield "<nav aria-label=Contents><details open><summary>Contents</summary><ul>"
    yield "<li><a href=#answers>Answers</a></li>"
    yield "<li><a href=#ranks>Ranks</a></li><li><a href=#claims>Claims</a></li></ul></details></nav>\n<main>\n"
    yield "<section id=answers><h2>Answers</h2><ul class=overview>"
    yield "".join(line for report in combined.reports for line in _answers(report))
    yield "</ul></section>\n<section id=ranks><h2>Ranks</h2>"
    yield "".join(_ranks(combined))
    yield "</section>\n<section id=claims><h2>Claims</h2>"
    yield ("".join(line for report in combined.reports for line in _claims(report)) or f"<p>{NO_CLAIMS}</p>")
    yield "</section>\n</main>\n"


def _answers(report: Report) -> Iterator[str]:
    link = f'<a href="{quote(report.name)}/report.html">{text(report.name)}</a>'
    for setting in report.settings:
        found = answers.answer(setting)
        where = f" {text(setting.label)} " if setting.label else ""
        yield f"<li>{link}{where}{badge(found.verdict, tone(found))}<p>{headline(setting)}</p></li>"
    if not report.settings:
        yield f"<li>{link}<p>{text(' '.join(report.notes))}</p></li>"


def _ranks(combined: Combined) -> Iterator[str]:
    if combined.ranks:
        yield figure("all", critical_difference.figure(combined.ranks))
    if combined.ranks is None or combined.ranks.left_out:
        yield f"<p class=note>{text(combined.about_ranks)}</p>"


def _claims(report: Report) -> Iterator[str]:
    if report.claims:
        yield f"<h3>{text(report.name)}</h3><ul class=overview>{claim_items(report)}</ul>"
