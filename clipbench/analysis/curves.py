"""Curves over training, summarised over the seeds of an arm: medians and 10-90 % ranges."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from clipbench.analysis import verdicts
from clipbench.analysis.report_model import Report
from clipbench.stats import Floats
from clipbench.store.folder import Store

QUANTILES = (0.1, 0.5, 0.9)
MOST_POINTS = 60
NORMS = ("grad_norm/pre", "grad_norm/post")
LOSS = "train/loss"
BINS, FEWEST_VALUES = 40, 20
OUTERMOST = (0.001, 0.999)  # a few huge norms of a divergence would leave one bar for all others
Key = tuple[str, ...]  # the trials of an arm


@dataclass(frozen=True, eq=False)
class Curve:
    """The quantiles of a measure over the seeds, by epoch or step."""

    x: Floats
    low: Floats
    middle: Floats
    high: Floats

    @property
    def values(self) -> list[float]:
        return [*self.low.tolist(), *self.middle.tolist(), *self.high.tolist()]


@dataclass(frozen=True, eq=False)
class Histogram:
    """The number of values in each bin of a log axis; the outermost bins include all values beyond."""

    edges: Floats
    counts: Floats
    sorted: Floats  # all positive values
    zeros: int = 0

    def share_above(self, value: float) -> float:
        below = float(np.searchsorted(self.sorted, value, side="right")) + self.zeros
        return 1 - below / (self.sorted.size + self.zeros)


@dataclass(frozen=True, eq=False)
class ArmCurves:
    """The curves of an arm, and the distribution of its gradient norms before clipping."""

    curves: Mapping[str, Curve] = field(default_factory=dict)
    norms: Histogram | None = None


CurvesByArm = Mapping[Key, ArmCurves]


def read(store: Store, report: Report) -> CurvesByArm:
    """The curves of the arms in the main table of each setting."""
    rows = [row for setting in report.settings for row in setting.main]
    key_of = {id_: row.ids for row in rows for id_ in row.ids}
    keys = list(dict.fromkeys(key_of.values()))
    arms = {id_: keys.index(key) for id_, key in key_of.items()}
    if not arms:
        return {}
    wanted = {LOSS, *(setting.metric.criterion or "" for setting in report.settings)} - {""}
    epochs, steps = store.epochs(list(arms)), store.steps(list(arms), NORMS)
    of_epochs, of_steps = _curves(epochs, "epoch", sorted(wanted), arms), _curves(steps, "step", NORMS, arms)
    norms = _norms(steps, arms, {keys.index(row.ids) for row in rows if row.verdict == verdicts.BASELINE})
    return {
        keys[arm]: ArmCurves(of_epochs.get(arm, {}) | of_steps.get(arm, {}), norms.get(arm))
        for arm in of_epochs.keys() | of_steps.keys()
    }


def _norms(steps: pd.DataFrame, arms: Mapping[str, int], baselines: Collection[int]) -> dict[int, Histogram]:
    """The gradient norms of the baselines over all seeds and steps."""
    if NORMS[0] not in steps:
        return {}
    norms = steps[NORMS[0]].astype(float).groupby(steps["id"].map(arms))
    found = {arm: histogram_of(np.asarray(each[np.isfinite(each)], float)) for arm, each in norms if arm in baselines}
    return {arm: histogram for arm, histogram in found.items() if histogram}


def histogram_of(values: Floats) -> Histogram | None:
    """Bins of equal width on a log axis; None if there are too few values."""
    positive = np.sort(values[values > 0])
    if positive.size < FEWEST_VALUES or positive[0] == positive[-1]:
        return None
    low, high = np.quantile(positive, OUTERMOST)
    if low == high:
        low, high = positive[0], positive[-1]
    edges = np.geomspace(low, high, BINS + 1)
    counts, _ = np.histogram(np.clip(positive, low, high), edges)
    return Histogram(edges, counts.astype(float), positive, int((values == 0).sum()))


def _curves(
    frame: pd.DataFrame, x: str, measures: Sequence[str], arms: Mapping[str, int]
) -> dict[int, dict[str, Curve]]:
    known = [measure for measure in measures if measure in frame]
    if frame.empty or not known:
        return {}
    values = frame[known].astype(float).where(np.isfinite(frame[known].astype(float)))
    groups = values.groupby([frame["id"].map(arms), _places(frame[x].to_numpy())])
    table = pd.concat({quantile: groups.quantile(quantile) for quantile in QUANTILES}, axis=1)
    return {arm: {measure: _curve(table.loc[arm], measure) for measure in known} for arm in table.index.unique(0)}


def _places(x: np.ndarray) -> Floats:
    """The position of each value: its own, or the end of its window if there are too many positions."""
    window = -(-int(x.max()) // MOST_POINTS)
    places: Floats = np.minimum(-(-x.astype(np.int64) // window) * window, x.max()).astype(float)
    return places


def _curve(part: pd.DataFrame, measure: str) -> Curve:
    low, middle, high = (part[quantile, measure].to_numpy(float) for quantile in QUANTILES)
    return Curve(part.index.to_numpy(float), low, middle, high)
