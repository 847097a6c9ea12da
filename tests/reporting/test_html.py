"""The HTML report: one file, nothing fetched, nothing a user named becomes markup; in a real browser where there is one."""

import dataclasses
import html as html_text
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from clipbench.analysis import curves
from clipbench.analysis.strategy_ranks import combine
from clipbench.reporting import ReportOptions, compare, figures
from clipbench.reporting.formats import html
from clipbench.reporting.notes import Fact
from clipbench.reporting.provenance import Provenance
from tests.analysis.test_claims import answers
from tests.reporting.test_figures import stored
from tests.reporting.test_report import arm, diverged, quickstart

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
PROVENANCE = Provenance(
    "clipbench run quickstart.yaml", (Fact("content hash", "abc", "Of the names of all trials."),), "name: quickstart\n"
)


def page(frame, **options):
    report = compare(frame, ReportOptions(**options), name="quickstart")
    return html.render(report, figures.draw(report, {}), PROVENANCE)


@pytest.fixture(scope="module")
def quickstart_page(tmp_path_factory):
    store = stored(tmp_path_factory.mktemp("store"), quickstart())
    report = compare(store.records(), ReportOptions(margin=0.005), name="quickstart")
    return html.render(report, figures.draw(report, curves.read(store, report)), PROVENANCE)


class Outline(HTMLParser):
    """Checks that every element that is opened is closed, and keeps what was met."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.words = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        self.links += [value for name, value in attributes if name in ("href", "src")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)


def outline(text):
    parser = Outline()
    parser.feed(text)
    parser.close()
    assert not parser.open
    return parser


def test_page_is_well_formed_and_its_contents_lead_somewhere(quickstart_page):
    found = outline(quickstart_page)
    assert len(found.ids) == len(set(found.ids))
    assert {link.removeprefix("#") for link in found.links} <= set(found.ids)
    assert {"s0-thresholds", "s0-comparison", "reproduce", "reading"} <= set(found.ids)


def test_page_names_no_address_that_could_be_fetched(quickstart_page):
    assert not re.search(r"https?:|//[a-z]|@import|url\(", quickstart_page.replace("https://", "https:"))
    assert "default-src 'none'" in quickstart_page


def test_answer_stands_before_every_table_and_figure(quickstart_page):
    body = quickstart_page[quickstart_page.index("<body>") :]
    assert body.index("Use <strong>norm@1.0</strong>") < body.index("<table>")
    assert body.index("is better than none") < body.index("<svg")


def test_every_column_and_every_reason_says_what_it_means(quickstart_page):
    found = outline(quickstart_page)
    buttons = [attributes for tag, attributes in found.tags if tag == "button"]
    terms = [attributes for tag, attributes in found.tags if tag == "span" and "tabindex" in attributes]
    assert len(buttons) > 15 and len(terms) >= 3
    assert all(len(attributes["data-tip"]) > 20 and attributes["title"] for attributes in (*buttons, *terms))


def test_verdict_stands_by_its_arm_where_a_phone_has_no_room_for_its_column(quickstart_page):
    shown = {row.arm: row.verdict for row in compare(quickstart(), ReportOptions(margin=0.005)).settings[0].main}
    found = [
        (facts, html_text.unescape(name))
        for facts, name in re.findall(r"<th scope=.row.([^>]*)>([^<]*)", quickstart_page)
    ]
    beside = {name: re.search('data-verdict="([^"]*)"', facts)[1] for facts, name in found if "data-verdict" in facts}
    assert beside == shown and len(set(beside.values())) > 2


def test_numbers_are_there_in_full_precision(quickstart_page):
    report = compare(quickstart())
    for row in report.settings[0].rows:
        if np.isfinite(row.value.mean):
            assert f'data-value="{100 * row.value.mean!r}"' in quickstart_page


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a&b\x00\x1b[0m"])
def test_users_strings_are_escaped_everywhere(name):
    frame = pd.DataFrame(arm("none") + [r for t in (1.0, 2.0) for r in arm(name, t, gain=0.05, data=name)])
    frame["data"] = name
    text = html.render(
        compare(frame, name=name),
        figures.draw(compare(frame), {}),
        Provenance(f"run {name}", (Fact(name, name, name),), f"name: {name}"),
    )
    assert name not in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    found = outline(text)
    assert not [tag for tag, _ in found.tags if tag == "img"]
    assert sum(tag == "script" for tag, _ in found.tags) == 1
    assert any("alert" in words or "a&b" in words for words in found.words)


def test_several_settings_begin_with_an_overview():
    rows = [r for lr in (0.1, 0.01) for r in arm("none", lr=lr) + arm("norm", 1.0, gain=0.05, lr=lr)]
    text = page(pd.DataFrame(rows))
    found = outline(text)
    assert "overview" in found.ids and "s1" in found.ids
    assert text.count("clipping helps") == 4


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (arm("none", seeds=3) + arm("norm", 1.0, gain=0.1, seeds=3), "too few seeds to tell"),
        (arm("none") + arm("norm", 1.0), "no benefit shown"),
        (arm("none"), "nothing to compare"),
        (diverged("none", None, range(8)) + arm("norm", 1.0), "clipping helps"),
        (arm("norm", 1.0) + arm("norm", 2.0), "nothing to compare"),
    ],
)
def test_answer_says_no_more_than_the_seeds_show(rows, words):
    assert words in page(pd.DataFrame(rows))


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ((0.5, 1.0), "the other threshold is not within one standard error of it"),
        ((0.1, 0.5, 1.0), "none of the other 2 thresholds is within one standard error of it"),
        ((1.0,), None),
    ],
)
def test_how_exact_the_threshold_must_be_is_said_in_words(thresholds, words):
    rows = arm("none") + [r for t in thresholds for r in arm("norm", t, gain=0.05 if t == 1.0 else -0.2)]
    text = " ".join(outline(page(pd.DataFrame(rows))).words)
    assert words in text if words else "within one standard error of it" not in text


def test_no_effect_is_an_answer():
    rows = arm("none", spread=0.001) + arm("norm", 1.0, spread=0.001)
    assert "no effect: within ±2 pp" in page(pd.DataFrame(rows), margin=0.02)


def test_nothing_trained_still_makes_a_page():
    assert "No trial of this experiment has been trained yet." in page(pd.DataFrame())


def test_five_hundred_trials_stay_below_three_megabytes(tmp_path):
    rows = [
        r
        for lr in (0.1, 0.01, 0.001)
        for strategy in "abcde"
        for threshold in range(1, 5)
        for r in arm(strategy, float(threshold), lr=lr)
    ]
    frame = pd.DataFrame(rows + [r for lr in (0.1, 0.01, 0.001) for r in arm("none", lr=lr)])
    store = stored(tmp_path, frame, epochs=80, steps=400)
    report = compare(store.records())
    text = html.render(report, figures.draw(report, curves.read(store, report)))
    assert len(frame) > 500
    assert len(text.encode()) < 1_500_000


# In a browser


HARNESS = """<!doctype html><meta charset=utf-8><body style="margin:0">
<iframe id=page style="border:0;width:%dpx;height:900px"></iframe><pre id=found></pre>
<script>
const frame = document.getElementById("page");
frame.addEventListener("load", () => {
  const page = frame.contentDocument, view = frame.contentWindow, found = {};
  const scrolled = (element) => element.closest(".scroll, pre");
  found.wide = page.documentElement.scrollWidth;
  found.over = [...page.querySelectorAll("body *")].filter((element) => !scrolled(element) && !element.closest("#tip")
    && element.getBoundingClientRect().right > view.innerWidth + 1).map((element) => element.outerHTML.slice(0, 200));
  found.resources = view.performance.getEntriesByType("resource").map((entry) => entry.name);
  const hasMeaning = (cell) => cell.closest("table").tHead.rows[0].cells[cell.cellIndex].firstElementChild.dataset.tip;
  const cells = [...page.querySelectorAll("td")].filter((cell) => /\\d/.test(cell.textContent) && !hasMeaning(cell));
  const terms = [...page.querySelectorAll("dd, p, h4, li p")].filter((element) => /\\d/.test(element.textContent)
    && !element.closest("figure") && !element.querySelector("[data-tip]")
    && !(element.previousElementSibling && element.previousElementSibling.querySelector("[data-tip]"))
    && !element.matches(".use, .note"));
  const marks = [...page.querySelectorAll("svg")].filter((drawing) => !/\\d/.test(drawing.getAttribute("aria-label")));
  found.unexplained = [...cells, ...terms, ...marks].map((element) => element.outerHTML.slice(0, 200));
  const table = page.querySelector("table");
  if (!table) { document.getElementById("found").textContent = JSON.stringify(found); return; }
  const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
  const header = (n) => table.tHead.rows[0].cells[n].firstElementChild;
  found.before = names();
  header(1).click(); found.falling = names(); found.aria = header(1).parentNode.getAttribute("aria-sort");
  header(1).click(); found.rising = names();
  header(0).click(); found.words = names();
  header(2).focus(); found.tip = page.getElementById("tip").textContent; found.shown = !page.getElementById("tip").hidden;
  const cell = table.tBodies[0].rows[0].cells[1];
  cell.dispatchEvent(new view.MouseEvent("mouseover", { bubbles: true }));
  found.cell = page.getElementById("tip").textContent;
  const point = page.querySelector("svg [data-mark][data-tip]");
  point.dispatchEvent(new view.MouseEvent("click", { bubbles: true }));
  found.point = page.getElementById("tip").textContent;
  found.titles = page.querySelectorAll("svg title").length;
  page.dispatchEvent(new view.KeyboardEvent("keydown", { key: "Escape" })); found.hidden = page.getElementById("tip").hidden;
  document.getElementById("found").textContent = JSON.stringify(found);
});
frame.srcdoc = %s;
</script>"""


def in_browser(tmp_path, text, width):
    """What a browser of that width finds on the page, and what it wrote to its console."""
    script = json.dumps(text).replace("</", "<\\/").replace("<!--", "<\\!--")
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS % (width, script), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000"]
    command += ["--virtual-time-budget=5000", "--dump-dom", harness.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html_text.unescape(found[1])), console


@pytest.fixture(scope="module")
def phone(quickstart_page, tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: install `chromium` to test the page in a real browser")
    return in_browser(tmp_path_factory.mktemp("browser"), quickstart_page, 360)


def ranked(count):
    """Experiments whose strategies can be ranked."""
    return [
        answers(
            arm("none", data=f"d{n}") + arm("a", 1.0, gain=0.02, data=f"d{n}") + arm("b", 1.0, data=f"d{n}"), "a > b"
        )
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A page with all that there is: settings, a tuned comparison, a target, claims, maps, many thresholds."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: install `chromium` to test the page in a real browser")
    long = "./a/very/long/path/to/my_own_rules.py:clip_by_something(per=tensor)"
    rows = [
        r | {"train.target": '["val/accuracy", 0.9]', "epochs_to_target": 3.0 + r["seed"]}
        for lr in (0.01, 0.1, 1.0)
        for r in diverged("value", 9.0, range(8), lr=lr)
        + arm("none", lr=lr)
        + [r for t in np.geomspace(0.001, 10, 13) for r in arm("norm", float(t), gain=lr / 50, lr=lr)]
        + [r for t in (0.5, 1.0) for r in arm(long, t, lr=lr)]
    ]
    store = stored(tmp_path_factory.mktemp("store"), pd.DataFrame(rows))
    claims = answers(rows, "norm > none", "always(norm@1.0 = none)").claims
    report = dataclasses.replace(compare(store.records(), ReportOptions(tuned=True), name="a-study"), claims=claims)
    drawn = figures.draw(report, curves.read(store, report))
    text = html.render(report, drawn, PROVENANCE, figures.across(report))
    together = html.render_combined(combine([report, *ranked(4)]))
    folder = tmp_path_factory.mktemp("browser")
    return {
        name: (page_text, *in_browser(folder, page_text, 360))
        for name, page_text in (("study", text), ("together", together))
        if "<table" in page_text or name == "together"
    }


@pytest.mark.parametrize("name", ["study", "together"])
def test_page_with_everything_has_no_error_fetches_nothing_and_fits_a_phone(everything, name):
    text, found, console = everything[name]
    assert console == []
    assert found["resources"] == []
    assert found["over"] == []
    assert found["wide"] <= 360
    outline(text)


def test_every_number_of_a_page_has_its_definition_one_hover_away(everything):
    text, found, _ = everything["study"]
    assert found["unexplained"] == []
    assert "Epochs to the target" in text and "How does the threshold move with lr?" in text


def test_browser_finds_no_error_and_fetches_nothing(phone):
    found, console = phone
    assert console == []
    assert found["resources"] == []


def test_nothing_overflows_a_phone_of_360_pixels(phone):
    found, _ = phone
    assert found["over"] == []
    assert found["wide"] <= 360


def test_click_on_a_header_sorts_numbers_and_words_with_missing_ones_last(phone):
    found, _ = phone
    means = {row.arm: row.value.mean for row in compare(quickstart()).settings[0].main}
    falling = sorted(means, key=means.get, reverse=True)
    assert found["before"][0] == "none"
    assert found["falling"] == falling
    assert found["aria"] == "descending"
    assert found["rising"] == falling[::-1]
    assert found["words"] == sorted(means, key=lambda name: (name.split("@")[0].split("(")[0], -name.count("(")))


def test_point_of_a_figure_says_its_values_when_it_is_touched(phone):
    found, _ = phone
    first = next(row for row in compare(quickstart()).settings[0].main if row.contrast)
    assert found["point"].startswith(f"{first.arm}: ") and "p = " in found["point"]
    assert found["titles"] == 0  # which the browser would show beside it


def test_definitions_are_shown_by_pointer_and_keyboard_and_hidden_by_escape(phone):
    found, _ = phone
    assert found["shown"] and "paired by seed" in found["tip"]
    assert "t interval" in found["cell"] and "Exact value: 9" in found["cell"]
    assert found["hidden"]
