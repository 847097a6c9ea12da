"""What a report is of: the trials of a plan, whichever they are."""

import pandas as pd

from clipbench import config
from clipbench.analysis.subject import subject_of
from clipbench.core.trial import Component, Training, Trial
from clipbench.planning.plan import Cohort, Plan
from clipbench.reporting import notes, provenance
from clipbench.reporting.write import publish
from tests.reporting.test_figures import stored
from tests.reporting.test_report import trial as row

YAML = """name: quickstart
data: digits
model: {name: mlp, hidden: [8]}
optimizer: {name: sgd, lr: 0.1}
clip: [none, {name: norm, threshold: [0.1, 0.5]}]
seeds: 2
"""


def experiment_of(folder):
    (folder / "quickstart.yaml").write_text(YAML, encoding="utf-8")
    return config.load(folder / "quickstart.yaml")


def trials_of(experiment, clips, seeds):
    data, model, optimizer = Component.of("digits"), experiment.models[0], experiment.optimizers[0]
    return tuple(Trial(data, model, optimizer, Training(), clip, seed) for clip in clips for seed in seeds)


def norm(threshold):
    return Component.of("norm", threshold=threshold)


def rows_of(trials):
    return [row(trial.strategy, trial.threshold, trial.seed, id=trial.id) for trial in trials]


def test_report_is_of_the_plans_trials_and_of_nothing_else_that_the_store_holds(tmp_path):
    experiment = experiment_of(tmp_path)
    searched = trials_of(experiment, [norm(0.1), norm(0.2), norm(0.4)], range(3))
    confirmed = trials_of(experiment, [Component.of("none"), norm(0.37)], range(8, 16))
    store = stored(tmp_path / "results", pd.DataFrame(rows_of([*searched, *confirmed])))
    subject = subject_of(Plan(experiment, (Cohort("0", confirmed, 10, 100, 20),)), "sweep")
    report = publish(subject, store)
    (setting,) = report.settings
    assert [(each.arm, each.trials) for each in setting.rows] == [("none", 8), ("norm@0.37", 8)]
    assert set(subject.ids) == {trial.id for trial in confirmed}
    assert not [note for note in notes.of_report(report) if "missing" in note or "not trained" in note]


def test_provenance_tells_the_trials_seeds_and_not_those_of_the_file(tmp_path):
    experiment = experiment_of(tmp_path)
    confirmed = trials_of(experiment, [Component.of("none"), norm(0.37)], (8, 9, 10))
    subject = subject_of(Plan(experiment, (Cohort("0", confirmed, 10, 100, 20),)), "sweep")
    found = provenance.of(subject, pd.DataFrame(rows_of(confirmed)))
    assert found.command == "clipbench sweep quickstart.yaml"
    assert {fact.term: fact.words for fact in found.facts}["trials"] == "6 (3 seeds: 8 to 10)"


def test_trials_that_are_not_there_are_named(tmp_path):
    experiment = experiment_of(tmp_path)
    wanted = trials_of(experiment, [Component.of("none"), norm(0.37)], range(8, 16))
    store = stored(tmp_path / "results", pd.DataFrame(rows_of(wanted[:-1])))
    report = publish(subject_of(Plan(experiment, (Cohort("0", wanted, 10, 100, 20),))), store)
    assert any("norm@0.37 seed 15" in note for note in notes.of_report(report))
