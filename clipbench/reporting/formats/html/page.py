"""The page: the answer first, then its evidence, then how to make it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources

from clipbench.analysis import claims
from clipbench.analysis.report_model import Report, Setting
from clipbench.reporting import answer as answers
from clipbench.reporting import claim_evidence, column_meaning, columns, legend, numbers
from clipbench.reporting.answer import Answer, Reason
from clipbench.reporting.figures import Figure
from clipbench.reporting.formats.html import search_section as searching
from clipbench.reporting.formats.html.escape import text
from clipbench.reporting.formats.html.pieces import explained, figure, items
from clipbench.reporting.formats.html.table import badge, table
from clipbench.reporting.provenance import Provenance

TONES = {answers.HELPS: "good", answers.NOT_SHOWN: "plain", answers.NO_MATTER: "plain", answers.TOO_FEW: "open"}
CLAIMED = {claims.SUPPORTED: "good", claims.REFUTED: "bad", claims.INCONCLUSIVE: "open", claims.UNTESTABLE: "plain"}
# Nothing is fetched, whatever a user's text holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def render(
    report: Report,
    figures: Sequence[Sequence[Figure]],
    provenance: Provenance | None = None,
    across: Sequence[Figure] = (),
    searched: Sequence[Figure] = (),
) -> str:
    """The whole report as one document: the figures of each setting, those that settings share, those of a search."""
    return document(report.name or "Comparison", "".join(_body(report, figures, provenance, across, searched)))


def document(title: str, body: str) -> str:
    """A page of its own, with its style and its script."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{text(title)} · clipbench</title>\n<style>\n{_asset('style.css')}</style>\n</head>\n"
        f"<body>\n{body}<script>\n{_asset('script.js')}</script>\n</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return resources.files("clipbench.reporting.formats.html").joinpath(name).read_text(encoding="utf-8")


def _body(
    report: Report,
    figures: Sequence[Sequence[Figure]],
    provenance: Provenance | None,
    across: Sequence[Figure],
    searched: Sequence[Figure],
) -> Iterator[str]:
    yield f"<header><p class=kicker>Gradient clipping, compared</p><h1>{text(report.name or 'Comparison')}</h1>"
    yield f"<p class=lead>{explained(_size(report), column_meaning.SIZE)}</p></header>\n"
    yield "".join(_contents(report, figures, provenance, searched))
    yield "<main>\n"
    if len(report.settings) > 1:
        yield "".join(_overview(report, across))
    for note in report.notes:
        yield f"<p class=note>{text(note)}</p>\n"
    if len(report.settings) > 1:
        yield "".join(_claims(report))
    for number, (setting, drawn) in enumerate(zip(report.settings, figures, strict=True)):
        yield "".join(_setting(number, setting, drawn, alone=len(report.settings) == 1))
    if report.search:
        yield "".join(searching.section(report.search, searched))
    if len(report.settings) <= 1:
        yield "".join(_claims(report))
    if provenance:
        yield "".join(_reproduction(provenance))
    yield "<section id=reading><h2>How to read this</h2><ul class=legend>"
    yield "".join(f"<li>{text(line)}</li>" for line in legend.lines(report))
    yield "</ul></section>\n</main>\n"


def _size(report: Report) -> str:
    return " · ".join((*_trained(report), *searching.size(report.search))) or "Nothing to compare yet."


def _trained(report: Report) -> Iterator[str]:
    settings = [setting for setting in report.settings if not setting.is_choice]
    if not settings:
        return
    if len(settings) > 1:
        yield numbers.count(len(settings), "setting")
    yield numbers.count(sum(len(setting.rows) for setting in settings), "arm")
    yield numbers.count(max(setting.seeds for setting in settings), "seed")
    trials = {id_ for setting in settings for row in setting.rows for id_ in row.ids}
    yield numbers.count(len(trials), "trial")  # the baseline's may be in several settings


def _contents(
    report: Report, figures: Sequence[Sequence[Figure]], provenance: Provenance | None, searched: Sequence[Figure]
) -> Iterator[str]:
    yield '<nav aria-label="Contents"><details open><summary>Contents</summary><ul>'
    if len(report.settings) > 1:
        yield "<li><a href=#overview>All settings</a></li>"
        for number, setting in enumerate(report.settings):
            yield f'<li><a href="#s{number}">{text(setting.label)}</a></li>'
    elif report.settings:
        yield "<li><a href=#s0>The answer</a></li><li><a href=#s0-comparison>Comparison</a></li>"
        for shown in figures[0]:
            yield f'<li><a href="#s0-{shown.name}">{text(shown.title)}</a></li>'
        if len(report.settings[0].rows) > len(report.settings[0].main):
            yield "<li><a href=#s0-everything>Every threshold</a></li>"
    if report.search:
        yield from searching.contents(searched)
    if report.claims:
        yield "<li><a href=#claims>Claims</a></li>"
    if provenance:
        yield "<li><a href=#reproduce>Make it again</a></li>"
    yield "<li><a href=#reading>How to read this</a></li></ul></details></nav>\n"


def _overview(report: Report, across: Sequence[Figure]) -> Iterator[str]:
    yield "<section id=overview><h2>All settings</h2><ul class=overview>"
    for number, setting in enumerate(report.settings):
        found = answers.answer(setting)
        yield f'<li><a href="#s{number}">{text(setting.label)}</a>{badge(found.verdict, tone(found))}'
        yield f"<p>{headline(setting)}</p></li>"
    yield "</ul>"
    yield "".join(figure("all", shown) for shown in across)
    yield "</section>\n"


def _claims(report: Report) -> Iterator[str]:
    if not report.claims:
        return
    yield f"<section id=claims><h2>{explained(claim_evidence.TITLE, claim_evidence.MEANING)}</h2>"
    yield f"<ul class=overview>{claim_items(report)}</ul></section>\n"


def claim_items(report: Report) -> str:
    """A list item a claim: verdict, words, expectation, evidence."""
    return "".join(
        f"<li>{badge(each.verdict, CLAIMED[each.verdict])} <strong>{text(each.says)}</strong> "
        f"<code>{text(each.expect)}</code>"
        f"<p>{explained(claim_evidence.sentence(each), claim_evidence.MEANING)}</p></li>"
        for each in report.claims
    )


def _setting(number: int, setting: Setting, figures: Sequence[Figure], *, alone: bool) -> Iterator[str]:
    key = f"s{number}"
    yield f'<section id="{key}"><h2>{text("The answer" if alone else setting.label)}</h2>'
    yield "".join(_answer(setting, answers.answer(setting)))
    comparison, details, *others = columns.grids(setting)
    timed = [grid for grid in others if grid.name == "target"]
    yield f'<h3 id="{key}-comparison">{text(comparison.title)}</h3>{table(comparison)}'
    yield items("flags", "Be aware", columns.flags(setting), column_meaning.FLAGS)
    yield items("notes", "Notes", setting.notes, column_meaning.NOTES)
    early = [shown for shown in figures if shown.name in ("differences", "thresholds", "histogram")]
    yield "".join(figure(key, shown) for shown in early)
    for grid in (details, *timed):
        yield f'<h3 id="{key}-{grid.name}">{text(grid.title)}</h3>{table(grid)}'
    yield "".join(figure(key, shown) for shown in figures if shown not in early)
    for grid in others:
        if grid not in timed:
            yield f'<h3 id="{key}-{grid.name}">{text(grid.title)}</h3>{table(grid)}'
    yield "</section>\n"


def _answer(setting: Setting, found: Answer) -> Iterator[str]:
    yield f'<div class="answer {tone(found)}">{badge(found.verdict, tone(found))}'
    if found.arm:
        verb = "Use" if found.verdict == answers.HELPS else "Stay with"
        yield f"<p class=use>{verb} <strong>{text(found.arm)}</strong></p>"
    yield f"<p class=headline>{headline(setting)}</p>"
    if found.advice:
        yield f"<p>{text(found.advice)}</p>"
    if found.reasons:
        yield "<dl>"
        yield "".join(_reason(reason) for reason in found.reasons)
        yield "</dl>"
    yield "</div>"


def _reason(reason: Reason) -> str:
    return f"<div><dt>{explained(reason.term, reason.meaning)}</dt><dd>{text(reason.words)}</dd></div>"


def headline(setting: Setting) -> str:
    """The sentence that answers, and what its numbers mean."""
    if not setting.baseline:
        return text(setting.headline)
    return explained(
        setting.headline, f"{column_meaning.difference(setting.baseline)} In brackets its ends. {column_meaning.P_HOLM}"
    )


def tone(found: Answer) -> str:
    return TONES.get(found.verdict, "plain")


def _reproduction(provenance: Provenance) -> Iterator[str]:
    yield "<section id=reproduce><h2>Make it again</h2>"
    yield f"<p>Save the experiment below and type</p><pre><code>{text(provenance.command)}</code></pre><dl class=facts>"
    for fact in provenance.facts:
        yield f"<div><dt>{explained(fact.term, fact.meaning)}</dt><dd>{text(fact.words)}</dd></div>"
    yield "</dl>"
    if provenance.yaml:
        yield "<details class=yaml><summary>The experiment, every default filled in</summary>"
        yield f'<pre tabindex="0"><code>{text(provenance.yaml)}</code></pre></details>'
    yield "</section>\n"
