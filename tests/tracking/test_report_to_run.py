"""What the parent run says of a study: the answer of its report."""

import json

from clipbench.tracking import report_to_run
from clipbench.tracking.run_values import NOTE_LENGTH, RunValues


def row(arm, mean, threshold=None, diverged=0, contrast=None):
    return {
        "arm": arm,
        "value": {"mean": mean},
        "threshold": threshold,
        "diverged": diverged,
        "step_us": 10.0,
        "contrast": contrast,
    }


def setting(label="", arm="norm@1.0", verdict="clipping helps"):
    contrast = {"difference": {"mean": 0.2, "low": 0.1, "high": 0.3}, "p_holm": 0.0123}
    return {
        "label": label,
        "metric": {"name": "test/accuracy", "higher_is_better": True},
        "baseline": "none",
        "seeds": 8,
        "rows": [row("none", 0.7, diverged=2), row("norm@1.0", 0.9, 1.0, contrast=contrast)],
        "answer": {"verdict": verdict, "arm": arm},
    }


def answer(folder, *settings, report="# Report\n"):
    (folder / "report.json").write_text(json.dumps({"settings": settings}))
    (folder / "report.md").write_text(report)
    return report_to_run.answer(folder)


def test_the_answer_is_tags_numbers_and_the_report_as_description(tmp_path):
    said = answer(tmp_path, setting())
    assert said.tags == {
        "clipbench.verdict": "clipping helps",
        "clipbench.best_arm": "norm@1.0",
        "clipbench.p": "0.0123",
        "mlflow.note.content": "# Report\n",
    }
    assert {name: value for name, value, _ in said.metrics} == {
        "seeds": 8,
        "best_arm/test/accuracy": 0.9,
        "best_arm/threshold": 1.0,
        "best_arm/diverged": 0,
        "best_arm/step_us": 10.0,
        "baseline/test/accuracy": 0.7,
        "baseline/diverged": 2,
        "baseline/step_us": 10.0,
        "difference/test/accuracy": 0.2,
        "difference/test/accuracy/low": 0.1,
        "difference/test/accuracy/high": 0.3,
        "p": 0.0123,
    }


def test_where_the_baseline_is_best_there_is_no_p(tmp_path):
    said = answer(tmp_path, setting(arm="none", verdict="no benefit shown"))
    assert said.tags["clipbench.best_arm"] == "none" and "clipbench.p" not in said.tags
    assert not [name for name, _, _ in said.metrics if name.startswith(("difference", "p"))]


def test_where_no_arm_is_recommended_only_the_verdict_is_said(tmp_path):
    said = answer(tmp_path, setting(arm="", verdict="too few seeds to tell"))
    assert set(said.tags) == {"clipbench.verdict", "mlflow.note.content"}
    assert not [name for name, _, _ in said.metrics if name.startswith("best_arm")]


def test_each_of_several_settings_is_called_by_its_name(tmp_path):
    said = answer(tmp_path, setting("lr=0.1"), setting("lr=1.0", arm="", verdict="too few seeds to tell"))
    assert said.tags["clipbench.verdict"] == "lr=0.1: clipping helps; lr=1.0: too few seeds to tell"
    assert said.tags["clipbench.best_arm"] == "lr=0.1: norm@1.0"
    values = {name: value for name, value, _ in said.metrics}
    assert values["lr_0.1/best_arm/test/accuracy"] == 0.9 and values["lr_1.0/baseline/test/accuracy"] == 0.7


def test_a_long_report_is_cut_between_lines_and_says_where_the_rest_is(tmp_path):
    note = answer(tmp_path, setting(), report="a line\n" * 2000).tags["mlflow.note.content"]
    assert NOTE_LENGTH - 10 < len(note) <= NOTE_LENGTH
    assert note.endswith("a line\n\n... (the artifact report.md has all of it)")


def test_without_a_report_nothing_is_said(tmp_path):
    assert report_to_run.answer(tmp_path) == RunValues()
    assert "mlflow.experiment.primaryMetric.name" not in report_to_run.experiment_tags(tmp_path)


def test_the_experiment_knows_its_main_metric_and_the_columns_of_its_table(tmp_path):
    answer(tmp_path, setting())
    tags = report_to_run.experiment_tags(tmp_path)
    assert tags["mlflow.experiment.primaryMetric.name"] == "test/accuracy"
    assert tags["mlflow.experiment.primaryMetric.greaterIsBetter"] == "True"
    columns = json.loads(tags["mlflow.sharedViewState.clipbench"])["selectedColumns"]
    assert "metrics.`best_arm/test/accuracy`" in columns and "tags.`clipbench.verdict`" in columns
