"""What the parent run says of a study: the answer of its report, as plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipbench.tracking.run_values import NOTE_LENGTH, TAG_LENGTH, Point, RunValues, key

VERDICT, BEST_ARM, P = "clipbench.verdict", "clipbench.best_arm", "clipbench.p"
NOTE = "mlflow.note.content"  # MLflow's UI shows it as the description of a run
PRIMARY_METRIC = "mlflow.experiment.primaryMetric."
VIEW = "clipbench"  # the name of our view of the table of runs, in its URL
# Columns of that view beside MLflow's own, in its order: metrics, params, tags.
COLUMNS = (
    "metrics.`diverged`",
    "params.`arm`",
    "params.`seed`",
    f"tags.`{BEST_ARM}`",
    f"tags.`{P}`",
    f"tags.`{VERDICT}`",
)
MORE = "\n\n... (the artifact report.md has all of it)"


def answer(folder: Path) -> RunValues:
    """Return the verdict, the best arm and their numbers as `report.json` has them, and the report as description."""
    try:
        settings = json.loads((folder / "report.json").read_text("utf-8"))["settings"]
        report = (folder / "report.md").read_text("utf-8")
    except OSError:  # no report yet
        return RunValues()
    tags = {
        VERDICT: _joined(settings, [setting["answer"]["verdict"] for setting in settings]),
        BEST_ARM: _joined(settings, [setting["answer"]["arm"] for setting in settings]),
        P: _joined(settings, [_p(setting) for setting in settings]),
        NOTE: report if len(report) <= NOTE_LENGTH else report[: NOTE_LENGTH - len(MORE)].rpartition("\n")[0] + MORE,
    }
    metrics = tuple(point for setting in settings for point in _metrics(setting, len(settings) > 1))
    return RunValues(tags={name: text for name, text in tags.items() if text}, metrics=metrics)


def experiment_tags(folder: Path) -> dict[str, str]:
    """Return what MLflow's UI reads: the kind of the experiment, its main metric, and our view of its runs."""
    try:
        metric = json.loads((folder / "report.json").read_text("utf-8"))["settings"][0]["metric"]
    except (OSError, IndexError):
        metric = {}
    compared = [f"metrics.`{role}{metric['name']}`" for role in ("", "best_arm/", "baseline/") if metric]
    tags = {
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{VIEW}": json.dumps({"selectedColumns": [*compared, *COLUMNS]}),
    }
    if metric:
        tags[f"{PRIMARY_METRIC}name"] = metric["name"]
        tags[f"{PRIMARY_METRIC}greaterIsBetter"] = str(metric["higher_is_better"])
    return tags


def _joined(settings: Sequence[Mapping[str, Any]], words: Sequence[str]) -> str:
    """What is said of each setting, with its name where there are several."""
    if len(settings) > 1:
        words = [f"{setting['label']}: {word}" for setting, word in zip(settings, words, strict=True) if word]
    return "; ".join(words)[:TAG_LENGTH]


def _row(setting: Mapping[str, Any], arm: str | None) -> Mapping[str, Any]:
    return next((row for row in setting["rows"] if row["arm"] == arm), {})


def _p(setting: Mapping[str, Any]) -> str:
    contrast = _row(setting, setting["answer"]["arm"]).get("contrast")
    return f"{contrast['p_holm']:.3g}" if contrast and contrast["p_holm"] is not None else ""


def _metrics(setting: Mapping[str, Any], is_one_of_several: bool) -> Iterator[Point]:
    """Values of the best arm and of the baseline, and their difference."""
    name = setting["metric"]["name"]
    best = _row(setting, setting["answer"]["arm"])
    found: dict[str, float | None] = {"seeds": setting["seeds"]}
    for role, row in (("best_arm", best), ("baseline", _row(setting, setting["baseline"]))):
        if row:
            found |= {f"{role}/{name}": row["value"]["mean"], f"{role}/threshold": row["threshold"]}
            found |= {f"{role}/diverged": row["diverged"], f"{role}/step_us": row["step_us"]}
    if contrast := best.get("contrast"):
        difference = contrast["difference"]
        found |= {f"difference/{name}": difference["mean"], "p": contrast["p_holm"]}
        found |= {f"difference/{name}/{end}": difference[end] for end in ("low", "high")}
    prefix = f"{setting['label']}/" if is_one_of_several else ""
    yield from ((key(prefix + what), float(value), 0) for what, value in found.items() if value is not None)
