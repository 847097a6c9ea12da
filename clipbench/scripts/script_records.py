"""The records of a trial that a script has trained: the same tables as of the engine, from what `clip` has recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipbench.core import series_measures
from clipbench.core.records import Columns, Records, as_columns
from clipbench.core.trial import Trial
from clipbench.engine.step import COLUMNS, COSINE, FIRED, LOSS, MAX, PRE
from clipbench.engine.tabulate import PERCENTILES
from clipbench.plugins import registry
from clipbench.scripts import fingerprints
from clipbench.scripts.script_clip import ScriptClip


def records_of(clip: ScriptClip, finals: Mapping[str, float]) -> Records:
    """Return the records of a trial, whose `main` returned these measures."""
    diverged = clip.diverged_step
    rows = clip.log.rows()[: diverged or None]
    ends = [steps for steps in clip.report_steps if not diverged or steps < diverged]
    reports = clip.reports[: len(ends)]
    record = _record(clip, rows, reports, finals)
    return Records(as_columns([record]), _epochs(clip, rows, ends), _steps(clip, rows))


def _record(
    clip: ScriptClip, rows: np.ndarray, reports: Sequence[Mapping[str, float]], finals: Mapping[str, float]
) -> dict[str, Any]:
    trial, diverged = clip.trial, clip.diverged_step
    status = "diverged" if diverged else "pruned" if clip.pruned else "finished"
    weights = [p.detach() for pair in clip.pairs.values() for p in pair.model.parameters() if p.requires_grad]
    main = rows[[name == next(iter(clip.pairs)) for name in clip.log.pairs[: len(rows)]], LOSS]
    found: dict[str, Any] = {}
    if status != "diverged":
        found = _last_reported(reports) | _best(trial, reports) | series_measures.tail(main)
    if status == "finished":
        found |= dict(finals) | _of_weights(weights)
        if "test/loss" in found and "train/loss" in found:
            found["generalization_gap"] = found["test/loss"] - found["train/loss"]
    return {
        "id": trial.id,
        "status": status,
        **trial.columns(),
        "parameters": sum(w.numel() for w in weights),
        **found,
        "epochs": len(reports),
        "epochs_to_target": _reports_to_target(trial, reports),
        "diverged": int(diverged > 0),
        "diverged_step": diverged or None,
        "diverged_cause": clip.log.status.causes[0] or None,
        "clip/fired_share": float(rows[:, FIRED].mean()),
        "clip/cosine": series_measures.mean(rows[:, COSINE]),
        "grad_norm/pre_p50": series_measures.quantile(rows[:, PRE], 0.5),
        "seconds": clip.seconds,
        "step_us": 1e6 * clip.log.step_seconds(),
        "engine": "script",
        "engine_note": None,
        "device": clip.device,
        "initial_weights": fingerprints.joined(list(clip.initial_weights.values())),
        "first_batches": fingerprints.joined(clip.first_batches),
    }


def _last_reported(reports: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the last finite value of each measure on validation data."""
    last = {name: value for report in reports for name, value in report.items() if math.isfinite(value)}
    return {name: value for name, value in last.items() if name.startswith("val/")}


def _best(trial: Trial, reports: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the best value over the reports of each measure on validation data."""
    found: dict[str, float] = {}
    for name, value in ((name, value) for report in reports for name, value in report.items()):
        if name.startswith("val/") and math.isfinite(value):
            better = max if _higher_is_better(trial, name) else min
            found[f"best_{name}"] = better(found.get(f"best_{name}", value), value)
    return found


def _higher_is_better(trial: Trial, name: str) -> bool:
    assert trial.script is not None
    declared: Any = dict(trial.script.aside).get("metrics", ())
    metric, known = name.partition("/")[2], registry.catalogue("metric")
    return (
        dict(declared)[metric] == "maximize"
        if metric in dict(declared)
        else (metric in known and known[metric].higher_is_better)
    )


def _reports_to_target(trial: Trial, reports: Sequence[Mapping[str, float]]) -> int | None:
    """Return the first report, from 1, whose measure reaches the target."""
    assert trial.script is not None
    target: Any = trial.script.as_dict().get("target")
    if not isinstance(target, tuple):
        return None
    name, wanted = target
    sign = 1 if _higher_is_better(trial, name) else -1
    reached = (number for number, report in enumerate(reports, 1) if sign * report.get(name, math.nan) >= sign * wanted)
    return next(reached, None)


def _of_weights(weights: list[Tensor]) -> dict[str, float]:
    with torch.no_grad():
        squares = sum(float(torch.linalg.vector_norm(w, dtype=torch.float64)) ** 2 for w in weights)
        zeros = sum(int((w == 0).sum()) for w in weights)
    return {"weight_norm": math.sqrt(squares), "weight_sparsity": zeros / max(1, sum(w.numel() for w in weights))}


def _epochs(clip: ScriptClip, rows: np.ndarray, ends: list[int]) -> Columns:
    """Return a row for each report: its measures, and those of the steps since the report before it."""
    table = []
    for number, (start, stop) in enumerate(zip([0, *ends], ends, strict=False), 1):
        losses, norms = rows[start:stop, LOSS], rows[start:stop, PRE]
        row = {"id": clip.trial.id, "epoch": number, "train/loss": series_measures.mean(losses)}
        row |= {name: value for name, value in clip.reports[number - 1].items() if name.startswith(("val/", "train/"))}
        table.append(row | {f"grad_norm/pre_p{p}": series_measures.quantile(norms, p / 100) for p in PERCENTILES})
    return as_columns(table) if table else {}


def _steps(clip: ScriptClip, rows: np.ndarray) -> Columns:
    count = len(rows)
    columns: Columns = {
        "id": np.array([clip.trial.id] * count, dtype=object),
        "step": np.arange(1, count + 1, dtype=np.int32),
        **{name: rows[:, column] for column, name in enumerate(COLUMNS)},
        "grad/nonfinite": (~np.isfinite(rows[:, MAX])).astype(rows.dtype),
    }
    if len(clip.pairs) > 1:
        columns["model_name"] = np.array(clip.log.pairs[:count], dtype=object)
    return columns
