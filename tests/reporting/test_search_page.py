"""The section of a search on the page and among the files of a report; in a real browser where there is one."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest

from clipbench.analysis import curves
from clipbench.analysis.subject import Subject
from clipbench.reporting import ReportOptions, compare, figures
from clipbench.reporting import search_sentences as words
from clipbench.reporting.formats import html
from clipbench.reporting.write import publish, write_pictures
from clipbench.store import sweep_file
from tests import fake_sweep
from tests.fake_sweep import SCENES
from tests.reporting.test_figures import stored
from tests.reporting.test_html import CHROMIUM, PROVENANCE, in_browser, outline

LONG = "./a/very/long/path/to/my_own_rules.py:clip_by_something(per=tensor)"
FIGURES = ("history", "slices", "importance", "parallel")


def many():
    """Many contenders with long names, everything flagged."""
    written, frame = fake_sweep.jointly()
    every = [
        each | {"name": f"{LONG}{n}", "label": f"{LONG}{n}", "setting": "adam, lr=0.001, train.batch_size=64"}
        for n in range(3)
        for each in written["contenders"]
    ]
    edge = {"path": "lr", "end": "high", "remedy": "--set sweep.search.'\"optimizer.lr\"'='{log: [0.0001, 100]}'"}
    return written | {"contenders": [each | {"edges": [edge]} for each in every], "stopped": "timeout of 600 s"}, frame


def page_of(folder, written, frame):
    path = folder / "sweep.json"
    path.write_text(json.dumps(written), encoding="utf-8")
    store = stored(folder / "store", frame) if len(frame) else None
    records = store.records() if store else pd.DataFrame()
    report = compare(records, ReportOptions(swept=sweep_file.read(path)), name="study")
    drawn = figures.draw(report, curves.read(store, report) if store else {})
    return html.render(report, drawn, PROVENANCE, figures.across(report), figures.of_search(report))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return {scene.__name__: page_of(tmp_path_factory.mktemp("page"), *scene()) for scene in (*SCENES.values(), many)}


@pytest.mark.parametrize("name", [*SCENES, "many"])
def test_page_is_well_formed_and_its_contents_lead_somewhere(pages, name):
    seen = outline(pages[name])
    assert len(seen.ids) == len(set(seen.ids))
    assert {link.removeprefix("#") for link in seen.links} <= set(seen.ids)
    assert {"search", "search-confirmations", "search-history", "search-slices"} <= set(seen.ids)


def test_every_figure_stands_on_the_page_once(pages):
    assert set(re.findall(r'<figure id="search-([\w-]+)"', pages["jointly"])) == set(FIGURES)
    shown = re.findall(r'<figure id="search-([\w-]+)"', pages["objectives"])
    assert shown == ["history", "slices", "history-2", "slices-2", "front"]


def test_the_fronts_of_three_objectives_stand_below_the_pareto_table(tmp_path):
    written, frame = fake_sweep.objectives()
    (tmp_path / "sweep.json").write_text(json.dumps(written), encoding="utf-8")
    report = compare(frame, ReportOptions(swept=sweep_file.read(tmp_path / "sweep.json")), name="study")
    *others, front = figures.of_search(report)
    more = dataclasses.replace(front, name="front-2")
    page = html.render(report, figures.draw(report, {}), searched=[*others, front, more])
    assert re.findall(r'<figure id="search-([\w-]+)"', page)[-2:] == ["front", "front-2"]
    assert page.index('id="search-pareto"') < page.index('id="search-front"')


def test_the_answer_stands_before_the_search_and_its_table_before_its_figures(pages):
    page = pages["thresholds"][pages["thresholds"].index("<main>") :]
    places = [
        page.index(words) for words in ('id="s0"', 'id="search"', "was optimistic by 0.94", 'id="search-confirmations"')
    ]
    places += [
        page.index(words) for words in ("to widen the range: <code>--set", 'id="search-history"', 'id="reproduce"')
    ]
    assert places == sorted(places)


def test_page_says_how_much_was_searched(pages):
    assert "80 points searched" in pages["thresholds"]
    assert "17 points searched" in pages["unfinished"]


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a&b\x00\x1b[0m"])
def test_what_stands_in_the_file_is_never_markup(name, tmp_path):
    written, frame = fake_sweep.objectives()
    written |= {"sampler": name, "pruner": name, "stopped": name, "experiment": name, "storage": name}
    for each in written["contenders"]:
        each |= {"name": name, "label": name, "setting": name, "importances": {name: 0.5, "threshold": 0.5}}
        each["edges"] = [{"path": name, "end": name, "remedy": name}]
        for param in each["hyperparameters"]:
            param["path"] = name
        for point in each["points"]:
            point |= {"values": {name: name}, "origin": name}
    text = page_of(tmp_path, written, frame)
    assert name not in text
    seen = outline(text)
    assert not [tag for tag, _ in seen.tags if tag == "img"]
    assert sum(tag == "script" for tag, _ in seen.tags) == 1


# Files


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    written, frame = fake_sweep.jointly()
    (folder / sweep_file.FILE).write_text(json.dumps(written), encoding="utf-8")
    store = stored(folder, frame)
    subject = Subject(
        "study", ReportOptions(planned={id_: id_ for id_ in frame["id"]}), (8, 9), "clipbench sweep study.yaml", ""
    )
    return subject, store, publish(subject, store, sweep_file.read(folder / sweep_file.FILE))


def test_a_report_of_a_search_has_its_figures_and_its_points_as_files(published):
    _, store, report = published
    names = {path.stem for path in (store.folder / "figures").glob("search-*.svg")}
    assert names == {f"search-{name}" for name in FIGURES}
    for path in (store.folder / "figures").iterdir():
        ElementTree.parse(path)
    assert len(pd.read_csv(store.folder / "search.csv")) == 120
    assert words.headline(report.search) in (store.folder / "report.md").read_text("utf-8")
    assert "The search" in (store.folder / "report.html").read_text("utf-8")
    assert json.loads((store.folder / "report.json").read_text("utf-8"))["search"]["swept"]["sampler"] == "tpe"


def test_pictures_of_a_search_are_written_too(published):
    subject, store, _ = published
    names = write_pictures(subject, store, sweep_file.read(store.folder / sweep_file.FILE))
    assert {f"figures/search-{name}.png" for name in FIGURES} <= set(names)


def test_a_report_of_something_else_takes_away_what_told_of_the_search(published):
    subject, store, _ = published
    report = publish(subject, store)
    assert report.search is None
    assert not (store.folder / "search.csv").exists()
    assert not list((store.folder / "figures").glob("search-*"))
    publish(subject, store, sweep_file.read(store.folder / sweep_file.FILE))


# In a browser


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine: install `chromium`")
@pytest.mark.parametrize(("name", "width"), [("objectives", 360), ("unfinished", 360), ("many", 360), ("many", 1280)])
def test_browser_finds_no_error_nothing_that_overflows_and_every_number_explained(pages, name, width, tmp_path):
    seen, console = in_browser(tmp_path, pages[name], width)
    assert console == []
    assert seen["resources"] == []
    assert seen["over"] == []
    assert seen["wide"] <= width
    assert seen["unexplained"] == []
