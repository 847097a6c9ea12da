"""The section "Use it" of a report, in every format that has one."""

import json
import re

import pandas as pd

from clipbench.reporting import ReportOptions, compare, use_it
from clipbench.reporting.formats import html, json_report, markdown
from tests.reporting.test_report import arm, quickstart

CALL = "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)"


def no_benefit():
    return arm("none") + arm("norm", 1.0)


def compared(rows, name="", **options):
    return compare(pd.DataFrame(rows), ReportOptions(**options), name)


def two_rates(rows):
    return [row | {"lr": lr} for lr in (0.1, 0.5) for row in rows()]


def test_every_format_ends_with_the_code_of_the_answer():
    report = compare(quickstart(), name="quickstart")
    page, text = html.render(report, [[]]), markdown.render(report)
    for shown in (page, text):
        _, _, section = shown.partition("Use it</h2>" if shown is page else "## Use it")
        assert "Clip by norm@1.0." in section and CALL in section and "clipper.step(optimizer)" in section
        assert "clipbench export quickstart --strategy NAME" in section
    assert page.count("<details open><summary>PyTorch</summary>") == 1 and '<a href="#use">Use it</a>' in page
    assert CALL in json.loads(json_report.render(report))["settings"][0]["use"]["code"]["torch"]


def test_without_a_benefit_nothing_is_decided_and_the_baseline_stays():
    [use] = use_it.uses(compared(no_benefit()))
    assert use.sentence == (
        "Not decided: no strategy is shown to be better than none, nor to make no difference; more seeds may show it. "
        "Until then, stay with none."
    )
    assert [code.library for code in use.codes] == ["torch", "lightning", "transformers", "optax"]


def test_a_baseline_that_clips_is_kept_if_nothing_is_better():
    report = compared(arm("norm", 1.0) + arm("value", 0.1), baseline="norm@1.0")
    [use] = use_it.uses(report)
    assert (
        use.sentence
        == (
            "Not decided: no strategy is shown to be better than norm@1.0, nor to make no difference; more seeds may show it. "
            "Until then, stay with norm@1.0."
        )
        and CALL in use.codes[0].text
    )


def test_without_an_answer_there_is_no_code():
    [use] = use_it.uses(compared(arm("none", seeds=3) + arm("norm", 1.0, gain=0.05, seeds=3)))
    assert use.sentence.startswith("Nothing is chosen, because of the verdict: too few seeds") and use.codes == ()


def test_of_several_settings_each_has_a_sentence_and_the_command_that_prints_its_code():
    report = compared(two_rates(no_benefit), "my study")
    one, other = use_it.uses(report)
    assert (one.title, one.codes) == ("lr=0.1", ())
    assert other.command == "clipbench export 'my study' --setting lr=0.5"
    assert markdown.render(report).count("clipbench export 'my study' --setting lr=") == 2
    assert html.render(report, [[], []]).count("clipbench export &#39;my study&#39; --setting lr=") == 2


def test_code_is_not_markdown_and_not_html():
    report = compare(quickstart(), name="<b>*x*")
    fenced = re.findall(r"^```python\n(.*?)^```$", markdown.render(report), re.MULTILINE | re.DOTALL)
    assert len(fenced) == 5
    for text in fenced:
        compile(text, "printed.py", "exec")
    assert "<b>*x*" not in html.render(report, [[]])
