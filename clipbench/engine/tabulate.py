"""The result of a chunk as tables: a row for each trial, for each epoch of a trial, and for each step of a trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from clipbench.core import series_measures
from clipbench.core.records import Columns, Records, as_columns
from clipbench.core.trial import Trial
from clipbench.engine.chunk_result import ChunkResult
from clipbench.engine.clipping.privacy import epsilon_of
from clipbench.engine.model.network import higher_is_better
from clipbench.engine.step import COLUMNS, COSINE, FIRED, LOSS, MAX, PRE

PERCENTILES = (50, 90, 99)  # of the gradient's norm over an epoch


def tabulate(result: ChunkResult, lanes: int, about: dict[str, Any]) -> Records:
    """Return the records of the first `lanes` lanes (the others pad the chunk); `about` is added to each row."""
    rows = [_record(result, lane, about) for lane in range(lanes)]
    weights = {
        result.trials[lane].id: np.concatenate([block[lane].ravel() for block in result.weights.values()])
        for lane in range(lanes)
        if result.trials[lane].train.save_weights and _status(result, lane) == "finished"
    }
    return Records(
        records=as_columns(rows),
        epochs=_joined([_epochs(result, lane) for lane in range(lanes)]),
        steps=_joined([_steps(result, lane) for lane in range(lanes)]),
        weights=weights,
    )


def _record(result: ChunkResult, lane: int, about: dict[str, Any]) -> dict[str, Any]:
    trial, diverged = result.trials[lane], int(result.status.diverged_step[lane])
    steps = result.steps[: result.last_step(lane), :, lane]
    own_step = result.rule_seconds[lane]
    average_rule = sum(result.rule_seconds) / len(result.trials)
    return {
        "id": trial.id,
        "status": _status(result, lane),
        **trial.columns(),
        "parameters": sum(block[lane].size for block in result.weights.values()),
        **_finals(result, lane),
        "epochs": int(result.status.pruned_epoch[lane]) or result.length.epochs,
        "epochs_to_target": _epochs_to_target(result, lane),
        "stopped_epoch": int(result.status.stopped_epoch[lane]) or None,
        "diverged": int(diverged > 0),
        "diverged_step": diverged or None,
        "diverged_cause": result.status.causes[lane] or None,
        "clip/fired_share": float(steps[:, FIRED].mean()),
        "clip/cosine": series_measures.mean(steps[:, COSINE]),
        "grad_norm/pre_p50": series_measures.quantile(steps[:, PRE], 0.5),
        **_privacy(result, trial, len(steps)),
        "seconds": result.step_seconds * len(steps),
        "step_us": 1e6 * (result.step_seconds + own_step - average_rule),
        **about,
    }


def _privacy(result: ChunkResult, trial: Trial, steps: int) -> dict[str, Any]:
    """Return the privacy budget that a trial with noise has spent, where it is known."""
    if not trial.clip.as_dict().get("noise"):
        return {}
    examples, batch = result.length.examples, result.length.batch
    return {"epsilon": None if result.fresh else epsilon_of(trial, batch / examples, steps, examples, result.weights)}


def _status(result: ChunkResult, lane: int) -> str:
    if result.status.diverged_step[lane]:
        return "diverged"
    return "pruned" if result.status.pruned_epoch[lane] else "finished"


def _finals(result: ChunkResult, lane: int) -> dict[str, float]:
    """Return the measures of a finished trial; of a pruned one those that follow from its epochs and steps."""
    status = _status(result, lane)
    if status == "diverged":
        return {}
    return (_latest(result, lane) if status == "pruned" else _at_end(result, lane)) | _over_time(result, lane)


def _at_end(result: ChunkResult, lane: int) -> dict[str, float]:
    """Return the measures in eval mode with the final weights, and the norm and sparsity of these weights."""
    trial = result.trials[lane]
    finals = {
        f"{part}/{name}": float(value)
        for part, values in result.finals.items()
        for name, value in zip(trial.train.measures, values[:, lane], strict=True)
    }
    if "test/loss" in finals and "train/loss" in finals:
        finals["generalization_gap"] = finals["test/loss"] - finals["train/loss"]
        finals["membership_advantage"] = float(result.membership[lane])
    weights = [block[lane] for block in result.weights.values()]
    finals["weight_norm"] = math.sqrt(sum(float(np.square(w, dtype=np.float64).sum()) for w in weights))
    finals["weight_sparsity"] = sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)
    return finals


def _latest(result: ChunkResult, lane: int) -> dict[str, float]:
    """Return the last measures on the validation part, if there are any."""
    latest = {name: curve[-1] for name, curve in _curves(result, lane).items() if name.startswith("val/")}
    return {name: float(value) for name, value in latest.items() if not math.isnan(value)}


def _over_time(result: ChunkResult, lane: int) -> dict[str, float]:
    """Return the measures that summarize the epochs and steps of a trial."""
    trial, curves, finals = result.trials[lane], _curves(result, lane), {}
    for name in trial.train.measures:
        curve = curves.get(f"val/{name}")
        if curve is not None and np.isfinite(curve).any():
            best = np.nanmax if higher_is_better(trial.train, name) else np.nanmin
            finals[f"best_val/{name}"] = float(best(curve))
    finals["grad/vanishing"] = series_measures.mean(curves["grad/vanishing"])
    return finals | series_measures.tail(result.steps[: result.last_step(lane), LOSS, lane])


def _curves(result: ChunkResult, lane: int) -> Columns:
    return {name: curve[: _whole_epochs(result, lane), lane] for name, curve in result.epochs.items()}


def _epochs_to_target(result: ChunkResult, lane: int) -> int | None:
    """Return the first epoch, from 1, whose measure reaches the target; None if there is none before divergence."""
    target = result.trials[lane].train.target
    epochs = _epochs(result, lane) if target else {}
    if target is None or target[0] not in epochs:
        return None
    curve = epochs[target[0]]
    better = higher_is_better(result.trials[lane].train, target[0].partition("/")[2])
    reached = curve >= target[1] if better else curve <= target[1]
    return int(reached.argmax()) + 1 if reached.any() else None


def _whole_epochs(result: ChunkResult, lane: int) -> int:
    """Return the number of epochs that the lane finished before it diverged, stopped or was pruned."""
    diverged = int(result.status.diverged_step[lane])
    trained = len(next(iter(result.epochs.values()))) if result.epochs else 0
    if diverged:
        return (diverged - 1) // result.length.epoch_steps
    return int(result.status.stopped_epoch[lane] or result.status.pruned_epoch[lane]) or trained


def _epochs(result: ChunkResult, lane: int) -> Columns:
    count = _whole_epochs(result, lane)
    parts = _by_epoch(result.steps[:, [LOSS, PRE], lane], result.length.epoch_steps, count)
    norms = np.concatenate([_quantiles(part[:, :, 1]) for part in parts], axis=1)
    return {
        "id": _repeated(result.trials[lane].id, count),
        "epoch": np.arange(1, count + 1, dtype=np.int32),
        "train/loss": np.concatenate([part[:, :, 0].mean(axis=1, dtype=np.float64) for part in parts]),
        **_curves(result, lane),
        **{f"grad_norm/pre_p{percent}": row for percent, row in zip(PERCENTILES, norms, strict=True)},
    }


def _by_epoch(steps: np.ndarray, epoch_steps: int, count: int) -> list[np.ndarray]:
    """Return the steps of `count` epochs as [epochs, steps, statistics]: the whole epochs, and a shorter last one."""
    whole = min(count, len(steps) // epoch_steps)
    parts = [steps[: whole * epoch_steps].reshape(whole, epoch_steps, steps.shape[1])]
    return parts if whole == count else [*parts, steps[np.newaxis, whole * epoch_steps :]]


def _quantiles(values: np.ndarray) -> np.ndarray:
    """Return [percentiles, rows] of the finite values of each row; all rows at once where all values are finite."""
    shares = [percent / 100 for percent in PERCENTILES]
    if values.size and np.isfinite(values).all():
        found: np.ndarray = np.quantile(values, shares, axis=1)
        return found
    return np.array([[series_measures.quantile(row, share) for row in values] for share in shares]).reshape(
        len(shares), len(values)
    )


def _steps(result: ChunkResult, lane: int) -> Columns:
    steps = result.steps[: result.last_step(lane), :, lane]
    nonfinite = (~np.isfinite(steps[:, MAX])).astype(steps.dtype)
    return {
        "id": _repeated(result.trials[lane].id, len(steps)),
        "step": np.arange(1, len(steps) + 1, dtype=np.int32),
        **{name: steps[:, row] for row, name in enumerate(COLUMNS)},
        "grad/nonfinite": nonfinite,
    }


def _joined(tables: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _repeated(text: str, count: int) -> np.ndarray:
    values = np.empty(count, dtype=object)
    values[:] = text
    return values
