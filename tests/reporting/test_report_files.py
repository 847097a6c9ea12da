"""The files of a report, as a real run leaves them: every format, figures of this report alone, and in time."""

import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest

from clipbench import config
from clipbench.analysis import curves
from clipbench.analysis.subject import subject_of
from clipbench.core.trial import Component, Training, Trial
from clipbench.planning.plan import Cohort, Plan
from clipbench.reporting import compare, figures
from clipbench.reporting.formats import html
from clipbench.reporting.write import publish, write_pictures
from tests.reporting.test_figures import stored
from tests.reporting.test_report import arm, quickstart

YAML = """name: quickstart
data: digits
model: {name: mlp, hidden: [8]}
optimizer: {name: sgd, lr: 0.1}
clip: [none, {name: norm, threshold: [0.1, 0.5, 1.0, 5.0]}]
seeds: 8
claims: [{says: clipping helps, expect: norm > none}]
"""
FIGURES = ("cost", "curves", "differences", "histogram", "norms", "thresholds")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A subject of five arms of the made-up quickstart, its store and its report."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "quickstart.yaml").write_text(YAML, encoding="utf-8")
    experiment = config.load(folder / "quickstart.yaml")
    trials = tuple(
        Trial(Component.of("digits"), experiment.models[0], experiment.optimizers[0], Training(), arm, seed)
        for arm in experiment.arms
        for seed in range(8)
    )
    plan = Plan(experiment, (Cohort("0", trials, 10, 100, 20),))
    frame = quickstart()
    ids = {(trial.arm, trial.seed): trial.id for trial in trials}
    frame["id"] = [ids.get(key, "other") for key in zip(frame["arm"], frame["seed"], strict=True)]
    store = stored(folder / "results", frame[frame["id"] != "other"])
    subject = subject_of(plan)
    return subject, store, publish(subject, store)


def test_every_format_is_written(published):
    _, store, _ = published
    names = {path.name for path in store.folder.iterdir() if path.is_file()}
    assert names >= {"report.md", "report.html", "report.json", "table.csv", "table.tex"}
    figures = {path.name for path in (store.folder / "figures").iterdir()}
    assert figures == {f"{name}.svg" for name in FIGURES}
    for path in (store.folder / "figures").iterdir():
        ElementTree.parse(path)


def test_page_says_how_to_reproduce_it(published):
    _, store, report = published
    page = (store.folder / "report.html").read_text("utf-8")
    assert "clipbench run quickstart.yaml" in page
    assert "0 to 7" in page and "torch 2" in page
    assert "threshold: [0.1, 0.5, 1.0, 5.0]" in page
    assert [each.verdict for each in report.claims] == ["supported"]


def test_figures_of_an_older_report_are_taken_away(published):
    subject, store, _ = published
    stale = store.folder / "figures" / "02-norms.svg"
    stale.write_text("<svg/>")
    mine = store.folder / "figures" / "mine.txt"
    mine.write_text("kept")
    publish(subject, store)
    assert not stale.exists() and mine.exists()
    mine.unlink()


def test_pictures_are_written_on_demand_with_the_same_names(published):
    subject, store, _ = published
    names = write_pictures(subject, store)
    assert sorted(names) == [f"figures/{name}.png" for name in FIGURES]
    for name in names:
        assert (store.folder / name).read_bytes().startswith(b"\x89PNG")
    publish(subject, store)
    assert not list((store.folder / "figures").glob("*.png"))


def test_importing_what_writes_a_report_imports_no_library_that_only_writing_needs():
    code = (
        "import sys, clipbench.reporting.write;"
        "sys.exit(' '.join(n for n in ('torch', 'mlflow', 'matplotlib', 'scipy.stats', 'jinja2') if n in sys.modules) or None)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_thousand_trials_with_their_series_are_reported_in_seconds(tmp_path):
    """8,000 trials with 2.4 million steps took 2.3 s on a quiet machine; reading their series 0.2 s of that."""
    rows = [
        r
        for lr in (0.01, 0.1, 1.0)
        for r in arm("none", lr=lr)
        + [r for strategy in "abc" for t in range(1, 15) for r in arm(strategy, float(t), lr=lr)]
    ]
    store = stored(tmp_path, pd.DataFrame(rows), epochs=20, steps=200)
    began = time.process_time()
    report = compare(store.records(), name="large")
    drawn = figures.draw(report, curves.read(store, report))
    html.render(report, drawn, across=figures.across(report))
    assert len(rows) > 1000
    assert time.process_time() - began < 5
