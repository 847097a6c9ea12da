"""Columns know what they mean: the legend, the hints of the page and the documentation say nothing else."""

import math

import pandas as pd
import pytest

from clipbench.analysis import search_result, verdicts
from clipbench.reporting import (
    ReportOptions,
    compare,
    comparison_tables,
    numbers,
    search_tables,
)
from clipbench.reporting.chapters import chapters, legend
from clipbench.reporting.formats import html, latex, markdown
from clipbench.reporting.table import Table, TableColumn
from tests.fake_sweep import SCENES
from tests.reporting.test_html import outline
from tests.reporting.test_report import arm, printed, quickstart, reaching
from tests.reporting.test_search import report_of

SETTINGS = {
    "quickstart": lambda: compare(quickstart(), ReportOptions(margin=0.005)),
    "target": lambda: compare(pd.DataFrame(reaching())),
    "no baseline": lambda: compare(pd.DataFrame(arm("norm", 1.0) + arm("norm", 2.0))),
    "no validation": lambda: compare(quickstart().drop(columns="val/accuracy")),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    searches = {name: report_of(folder, *scene()) for name, scene in SCENES.items()}
    return {name: make() for name, make in SETTINGS.items()} | searches


@pytest.fixture(scope="module")
def tables(reports):
    found = [each for report in reports.values() for one in report.settings for each in comparison_tables.tables(one)]
    return found + [
        each for report in reports.values() if report.search for each in search_tables.tables(report.search)
    ]


def test_every_column_says_what_it_means_in_a_sentence(tables):
    meanings = {(column.header, column.meaning) for table in tables for column in table.columns}
    assert len(meanings) > 30
    assert [header for header, meaning in meanings if len(meaning) <= 20 or not meaning.endswith(".")] == []
    assert [header for header, meaning in meanings if not meaning[0].isupper()] == []


def test_no_table_has_two_columns_of_one_name(tables):
    for table in tables:
        headers = [column.header for column in table.columns]
        assert len(headers) == len(set(headers)), table.title


def test_every_verdict_of_a_comparison_and_of_a_search_has_a_meaning(reports):
    (setting,) = reports["quickstart"].settings
    named = {
        getattr(verdicts, name) for name in ("BASELINE", "NO_BASELINE", "BEST", "FIRST", "TIED", "BETTER", "WORSE")
    }
    named |= {verdicts.NO_EFFECT, verdicts.UNDERPOWERED, verdicts.NO_DIFFERENCE}
    assert set(comparison_tables.verdict(setting).words) == named
    searched = {search_result.CONFIRMED, search_result.OPTIMISTIC, search_result.PESSIMISTIC}
    searched |= {search_result.NOT_CONFIRMED, search_result.NOT_SEARCHED}
    assert set(search_tables.AGREEMENT) == searched


def test_every_word_that_stands_in_a_column_of_verdicts_is_one_that_it_explains(tables):
    words = [cell for table in tables for row in table.cells for cell in row if cell.column.words]
    assert len({cell.text for cell in words}) > 8
    assert [cell.text for cell in words if not cell.meaning] == []


def test_legend_has_every_column_and_used_word_once_and_no_other(reports):
    (setting,) = reports["quickstart"].settings
    lines = legend(chapters(reports["quickstart"]))
    assert len(lines) == len(set(lines))
    starts = [line.partition(": ")[0] for line in lines]
    headers = {column.header for table in comparison_tables.tables(setting) for column in table.columns}
    assert set(starts) == headers | {row.verdict for row in setting.main}


def test_legend_is_of_the_tables_that_are_shown(reports):
    brief = legend(chapters(reports["quickstart"], full=False))
    assert not any(line.startswith("val/accuracy") for line in brief)
    assert set(brief) < set(legend(chapters(reports["quickstart"])))


@pytest.mark.parametrize("name", [*SETTINGS, *SCENES])
def test_terminal_markdown_and_page_explain_the_same_columns_in_the_same_words(reports, name):
    report = reports[name]
    page = outline(html.render(report, [[] for _ in report.settings]))
    hints = [facts["data-tip"] for tag, facts in page.tags if tag == "button"]
    said = " ".join(printed(report).split())
    written = markdown.render(report).replace("\\", "")
    every = [each for one in report.settings for each in comparison_tables.tables(one)]
    every += search_tables.tables(report.search) if report.search else []
    terms = {line.partition(":")[0] for line in legend(chapters(report))}
    assert len(terms) == len(legend(chapters(report))), "no term has two meanings"
    assert hints == [column.meaning for table in every for column in table.columns]
    for table in every:
        for column in table.columns:
            assert column.legend in said
            assert f"- {column.legend}" in written


def test_latex_explains_the_numbers_of_the_first_table(reports):
    (setting,) = reports["quickstart"].settings
    text = latex.render(reports["quickstart"])
    for column in comparison_tables.comparison(setting).columns:
        assert (latex.text(column.meaning) in text) == (not column.is_text)


def test_exact_value_is_in_the_unit_that_the_header_names(reports):
    (setting,) = reports["quickstart"].settings
    value, difference = comparison_tables.metric(setting), comparison_tables.difference(setting)
    assert (value.header, difference.header) == ("test/accuracy %", "vs none (pp)")
    best = setting.main[1]
    assert value.exact(value.value(best)) == 100 * best.value.mean
    assert difference.exact(difference.value(best)) == 100 * best.contrast.difference.mean
    assert comparison_tables.STEP_TIME.header == "step (µs)"


def test_columns_of_words_and_counts_are_sorted_by_what_they_mean(reports):
    """As the page sorts: by how far wins exceed losses, by seeds, by per cent."""
    (setting,) = reports["quickstart"].settings
    best = setting.main[1]
    exact = {cell.column.title: cell.exact for cell in comparison_tables.training(setting).cells[1]}
    assert exact["w-t-l"] == best.contrast.score.wins - best.contrast.score.losses == 8
    assert exact["diverged"] == best.diverged and exact["clipped"] == 100 * best.fired_share
    assert exact["dz"] == best.contrast.dz and exact["norm"] == best.grad_norm and exact["step"] == best.step_us
    (timed,) = reports["target"].settings
    reached = {cell.column.title: cell.exact for cell in comparison_tables.target(timed).cells[1]}
    reach = timed.main[1].reach
    assert reached["reached"] == reach.reached and reached["median"] == reach.median
    assert reached["restricted mean"] == reach.restricted and reached["p (log-rank)"] == timed.main[1].contrast.p_reach


def test_a_row_without_a_value_has_a_dash_and_no_number():
    table = Table(
        "a", "A", (TableColumn("b", "Nothing.", lambda row: None), TableColumn("c", "A row.", lambda row: row)), (1.5,)
    )
    ((missing, known),) = table.cells
    assert (missing.text, missing.is_finite) == (numbers.NOTHING, False) and math.isnan(missing.exact)
    assert (known.text, known.exact, known.is_finite) == ("1.5", 1.5, True)


def test_verdict_of_a_row_is_explained_where_it_stands_on_the_page(reports):
    (setting,) = reports["quickstart"].settings
    page = outline(html.render(reports["quickstart"], [[]]))
    tips = [facts["data-tip"] for tag, facts in page.tags if tag == "td" and "data-tip" in facts]
    words = comparison_tables.verdict(setting).words
    assert tips == [words[row.verdict] for row in setting.main]
