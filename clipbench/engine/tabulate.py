"""An outcome as flat tables: one row a trial, a trial and epoch, a trial and step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from clipbench.core.records import Columns, Records, as_columns
from clipbench.core.trial import Trial
from clipbench.engine.clipping.privacy import epsilon_of
from clipbench.engine.cohort_training import Outcome
from clipbench.engine.model.functional import higher_is_better
from clipbench.engine.telemetry import COLUMNS, COSINE, FIRED, LOSS, MAX, PRE

PERCENTILES = (50, 90, 99)  # of the gradient's norm over an epoch


def tabulate(outcome: Outcome, lanes: int, about: dict[str, Any]) -> Records:
    """Records of the first `lanes` lanes (the others pad the chunk); `about` says how they were trained."""
    rows = [_record(outcome, lane, about) for lane in range(lanes)]
    weights = {
        outcome.trials[lane].id: np.concatenate([block[lane].ravel() for block in outcome.weights.values()])
        for lane in range(lanes)
        if outcome.trials[lane].train.save_weights and _status(outcome, lane) == "finished"
    }
    return Records(
        records=as_columns(rows),
        epochs=_joined([_epochs(outcome, lane) for lane in range(lanes)]),
        steps=_joined([_steps(outcome, lane) for lane in range(lanes)]),
        weights=weights,
    )


def _record(outcome: Outcome, lane: int, about: dict[str, Any]) -> dict[str, Any]:
    trial, diverged = outcome.trials[lane], int(outcome.diverged_step[lane])
    steps = outcome.steps[: outcome.last_step(lane), :, lane]
    step_seconds = outcome.seconds / sum(outcome.last_step(each) for each in range(len(outcome.trials)))
    own_step = outcome.rule_seconds[lane]
    average_rule = sum(outcome.rule_seconds) / len(outcome.trials)
    return {
        "id": trial.id,
        "status": _status(outcome, lane),
        **trial.columns(),
        "parameters": sum(block[lane].size for block in outcome.weights.values()),
        **_finals(outcome, lane),
        "epochs": int(outcome.pruned_epoch[lane]) or outcome.schedule.epochs,
        "epochs_to_target": _epochs_to_target(outcome, lane),
        "stopped_epoch": int(outcome.stopped_epoch[lane]) or None,
        "diverged": int(diverged > 0),
        "diverged_step": diverged or None,
        "diverged_cause": outcome.diverged_cause[lane] or None,
        "clip/fired_share": float(steps[:, FIRED].mean()),
        "clip/cosine": _mean(steps[:, COSINE]),
        "grad_norm/pre_p50": _quantile(steps[:, PRE], 0.5),
        **_privacy(outcome, trial, len(steps)),
        "seconds": step_seconds * len(steps),
        "step_us": 1e6 * (step_seconds + own_step - average_rule),
        **about,
    }


def _privacy(outcome: Outcome, trial: Trial, steps: int) -> dict[str, Any]:
    """What a trial with noise has given away, where that can be said."""
    if not trial.clip.as_dict().get("noise"):
        return {}
    examples, batch = outcome.schedule.examples, outcome.schedule.batch
    return {"epsilon": None if outcome.fresh else epsilon_of(trial, batch / examples, steps, examples)}


def _status(outcome: Outcome, lane: int) -> str:
    if outcome.diverged_step[lane]:
        return "diverged"
    return "pruned" if outcome.pruned_epoch[lane] else "finished"


def _finals(outcome: Outcome, lane: int) -> dict[str, float]:
    """The numbers of a trial that went to its end; of one that was pruned what its epochs and steps say."""
    status = _status(outcome, lane)
    if status == "diverged":
        return {}
    return (_latest(outcome, lane) if status == "pruned" else _at_end(outcome, lane)) | _over_time(outcome, lane)


def _at_end(outcome: Outcome, lane: int) -> dict[str, float]:
    """Measures in eval mode with the final weights, and these weights."""
    trial = outcome.trials[lane]
    finals = {
        f"{part}/{name}": float(value)
        for part, values in outcome.finals.items()
        for name, value in zip(trial.train.measures, values[:, lane], strict=True)
    }
    if "test/loss" in finals and "train/loss" in finals:
        finals["generalization_gap"] = finals["test/loss"] - finals["train/loss"]
        finals["membership_advantage"] = float(outcome.membership[lane])
    weights = [block[lane] for block in outcome.weights.values()]
    finals["weight_norm"] = math.sqrt(sum(float(np.square(w, dtype=np.float64).sum()) for w in weights))
    finals["weight_sparsity"] = sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)
    return finals


def _latest(outcome: Outcome, lane: int) -> dict[str, float]:
    """What was measured on the validation part after the last epoch, if anything was."""
    latest = {name: curve[-1] for name, curve in _curves(outcome, lane).items() if name.startswith("val/")}
    return {name: float(value) for name, value in latest.items() if not math.isnan(value)}


def _over_time(outcome: Outcome, lane: int) -> dict[str, float]:
    """What the series of a trial come to."""
    trial, curves, finals = outcome.trials[lane], _curves(outcome, lane), {}
    for name in trial.train.measures:
        curve = curves.get(f"val/{name}")
        if curve is not None and np.isfinite(curve).any():
            best = np.nanmax if higher_is_better(trial.train, name) else np.nanmin
            finals[f"best_val/{name}"] = float(best(curve))
    finals["grad/vanishing"] = _mean(curves["grad/vanishing"])
    return finals | _tail(outcome.steps[: outcome.last_step(lane), LOSS, lane])


def _curves(outcome: Outcome, lane: int) -> Columns:
    return {name: curve[: _whole_epochs(outcome, lane), lane] for name, curve in outcome.epochs.items()}


def _tail(losses: np.ndarray) -> dict[str, float]:
    """What the loss is like over the second half of the steps: where it hovers, and how far it strays."""
    losses = losses[len(losses) // 2 :]
    return {
        "train/loss_tail": float(losses.mean()),
        "train/loss_tail_p50": _quantile(losses, 0.5),
        "train/loss_tail_p99": _quantile(losses, 0.99),
    }


def _epochs_to_target(outcome: Outcome, lane: int) -> int | None:
    """The first epoch, from 1, whose measure is as good as the target; None if there was none before divergence."""
    target = outcome.trials[lane].train.target
    epochs = _epochs(outcome, lane) if target else {}
    if target is None or target[0] not in epochs:
        return None
    curve = epochs[target[0]]
    better = higher_is_better(outcome.trials[lane].train, target[0].partition("/")[2])
    reached = curve >= target[1] if better else curve <= target[1]
    return int(reached.argmax()) + 1 if reached.any() else None


def _whole_epochs(outcome: Outcome, lane: int) -> int:
    """Epochs that the lane finished before it diverged, stopped or was pruned."""
    diverged = int(outcome.diverged_step[lane])
    trained = len(next(iter(outcome.epochs.values()))) if outcome.epochs else 0
    if diverged:
        return (diverged - 1) // outcome.schedule.epoch_steps
    return int(outcome.stopped_epoch[lane] or outcome.pruned_epoch[lane]) or trained


def _epochs(outcome: Outcome, lane: int) -> Columns:
    count = _whole_epochs(outcome, lane)
    parts = _by_epoch(outcome.steps[:, [LOSS, PRE], lane], outcome.schedule.epoch_steps, count)
    norms = np.concatenate([_quantiles(part[:, :, 1]) for part in parts], axis=1)
    return {
        "id": _repeated(outcome.trials[lane].id, count),
        "epoch": np.arange(1, count + 1, dtype=np.int32),
        "train/loss": np.concatenate([part[:, :, 0].mean(axis=1, dtype=np.float64) for part in parts]),
        **_curves(outcome, lane),
        **{f"grad_norm/pre_p{percent}": row for percent, row in zip(PERCENTILES, norms, strict=True)},
    }


def _by_epoch(steps: np.ndarray, epoch_steps: int, count: int) -> list[np.ndarray]:
    """The steps of `count` epochs as [epochs, steps, statistics]: the whole ones, and the last if it was cut short."""
    whole = min(count, len(steps) // epoch_steps)
    parts = [steps[: whole * epoch_steps].reshape(whole, epoch_steps, steps.shape[1])]
    return parts if whole == count else [*parts, steps[np.newaxis, whole * epoch_steps :]]


def _quantiles(values: np.ndarray) -> np.ndarray:
    """[percentiles, rows] of what is finite in each row; all rows at once where everything is."""
    shares = [percent / 100 for percent in PERCENTILES]
    if values.size and np.isfinite(values).all():
        found: np.ndarray = np.quantile(values, shares, axis=1)
        return found
    return np.array([[_quantile(row, share) for row in values] for share in shares]).reshape(len(shares), len(values))


def _steps(outcome: Outcome, lane: int) -> Columns:
    steps = outcome.steps[: outcome.last_step(lane), :, lane]
    nonfinite = (~np.isfinite(steps[:, MAX])).astype(steps.dtype)
    return {
        "id": _repeated(outcome.trials[lane].id, len(steps)),
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


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _quantile(values: np.ndarray, q: float) -> float:
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, q)) if len(finite) else float("nan")
