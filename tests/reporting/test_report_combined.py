"""Several experiments on one page: ranks over all settings, every answer, every claim."""

import dataclasses
import io
import json

import pandas as pd
import pytest
from rich.console import Console
from scipy import stats as scipy_stats

from clipbench.analysis.strategy_ranks import combine
from clipbench.reporting import compare, comparison_tables
from clipbench.reporting.figures import critical_difference
from clipbench.reporting.formats import html, json_report, markdown, terminal
from clipbench.reporting.write import write_combined
from tests.analysis.test_claims import answers
from tests.golden_files import check_golden
from tests.reporting.test_html import outline
from tests.reporting.test_report import arm, diverged, texts
from tests.svg_reader import Drawing, clashes, font_boxes


def reports(settings=4, more=()):
    """In every setting b is best, then a, then the baseline."""
    return [
        answers(
            arm("none", data=f"d{n}")
            + arm("a", 1.0, gain=0.02, data=f"d{n}")
            + arm("b", 1.0, gain=0.05, data=f"d{n}")
            + [row | {"data": f"d{n}"} for row in more],
            "b > none",
        )
        for n in range(settings)
    ]


def test_ranks_are_over_all_settings_and_friedman_is_scipys():
    found = combine(reports()).ranks
    assert found.strategies == ("b", "a", "none")
    assert found.ranking.means == (1.0, 2.0, 3.0)
    assert found.blocks == 4
    assert found.ranking.p == pytest.approx(scipy_stats.friedmanchisquare([1] * 4, [2] * 4, [3] * 4).pvalue)


def test_strategy_that_diverges_ranks_last_whatever_its_mean():
    rows = arm("c", 1.0, gain=0.5, seeds=7) + diverged("c", 1.0, [7])
    assert combine(reports(more=rows)).ranks.strategies[-1] == "c"


def test_strategy_that_some_setting_lacks_is_left_out_and_named():
    every = reports(3) + reports(1, more=arm("c", 1.0))
    assert combine(every).ranks.left_out == ("c",)
    assert "Not ranked, because some setting lacks them: c." in html.render_combined(combine(every))


def test_too_few_settings_or_strategies_are_not_ranked():
    assert combine(reports(2)).ranks is None
    assert combine([compare(pd.DataFrame(arm("none") + arm("a", 1.0))) for _ in range(4)]).ranks is None
    assert "need at least three settings" in html.render_combined(combine(reports(2)))


def test_equal_strategies_share_their_rank():
    rows = arm("none") + [r | {"strategy": "twin", "arm": "twin", "id": f"twin{r['seed']}"} for r in arm("none")]
    found = combine([compare(pd.DataFrame(rows + arm("a", 1.0, gain=0.05))) for _ in range(3)]).ranks
    assert found.ranking.means == (1.0, 2.5, 2.5)


def test_bars_span_strategies_that_do_not_differ_significantly():
    ranks = combine(reports(4)).ranks
    drawn = critical_difference.figure(ranks)
    drawing = Drawing(drawn.panels[0])
    assert len(drawing.of("line", "orange")) == 2  # b with a, a with none; b and none differ significantly
    bottom = 26 + 24 * len(ranks.strategies)
    assert [drawing.value_at_x(mark.x, bottom) for mark in drawing.marks] == pytest.approx(ranks.ranking.means)
    assert clashes(drawing, font_boxes(drawing)) == []
    assert "Friedman test: p = 0.018" in drawn.caption
    assert "<path" in drawn.svg


def named(count=3):
    return combine([dataclasses.replace(report, name=f"study{n}") for n, report in enumerate(reports(count))])


def test_terminal_says_what_it_said():
    console = Console(width=80, file=io.StringIO())
    terminal.render_combined(named(), console)
    text = console.file.getvalue()
    check_golden("report/combined.txt", text)
    assert max(map(len, text.splitlines())) <= 80 and "\x1b" not in text


def test_markdown_says_what_it_said():
    check_golden("report/combined.md", markdown.render_combined(named()))


def test_without_ranks_and_claims_the_texts_say_why():
    found = combine([compare(pd.DataFrame(), name="a|b"), compare(pd.DataFrame(arm("none") + arm("a", 1.0)), name="c")])
    console = Console(width=80, file=io.StringIO())
    terminal.render_combined(found, console)
    for text in (console.file.getvalue(), markdown.render_combined(found), html.render_combined(found)):
        words = " ".join(text.split())
        assert "need at least three settings" in words and "No experiment makes a claim." in words
        assert "No trial of this experiment has been trained yet." in words


def test_json_holds_every_report_and_the_ranks():
    found = json.loads(json.dumps(json_report.combined_as_dict(named()), allow_nan=False))
    assert [each["name"] for each in found["experiments"]] == ["study0", "study1", "study2"]
    assert found["ranks"]["strategies"] == ["b", "a", "none"]
    assert json_report.combined_as_dict(combine(reports(1)))["ranks"] is None


def test_ranks_name_what_is_not_significantly_different():
    assert texts(comparison_tables.ranks(named(4).ranks)) == [
        ["b", "1.00", "a"],
        ["a", "2.00", "b, none"],
        ["none", "3.00", "a"],
    ]


def test_page_holds_every_answer_and_claim_and_links_to_each_report(tmp_path):
    path = write_combined(combine(reports(3)), tmp_path)
    text = path.read_text("utf-8")
    found = outline(text)
    assert path == tmp_path / "report.html"
    assert (tmp_path / "report.md").read_text("utf-8").count("b \\> none") >= 3
    assert text.count("<code>b &gt; none</code>") == 3
    assert text.count("claims/report.html") == 3
    assert {"answers", "ranks", "claims"} <= set(found.ids)
