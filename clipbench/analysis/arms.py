"""The trials of a store by setting and arm, as arrays with one entry a seed."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipbench.analysis.report_model import Metric
from clipbench.core import measures
from clipbench.stats import Floats

Mask = NDArray[np.bool_]
NAMES = ("data", "model", "optimizer", "lr")
SECTIONS = ("data.", "model.", "optimizer.", "train.")
LARGEST = 1e150
FOLD = "data.fold"  # folds are averaged within their seed, so they are not settings of their own
MEASURES = (
    "clip/fired_share",
    "clip/fraction",
    "clip/cosine",
    "grad_norm/pre_p50",
    "step_us",
    "epochs_to_target",
    "weight_norm",
)


@dataclass(frozen=True, eq=False)
class Arm:
    """A strategy at one threshold; arrays have one entry a seed of the setting, NaN if the arm lacks it."""

    name: str
    strategy: str
    threshold: float | None
    value: Floats  # of the metric; NaN for a diverged trial
    criterion: Floats
    present: Mask  # finished or diverged
    diverged: Mask  # also where the metric or the criterion of a finished trial is not finite
    nonfinite: Mask  # of those, the finished ones
    ranks_last: Mask  # the diverged ones, unless the metric is neither better nor worse, such as a gradient norm
    measures: Mapping[str, Floats]
    setting: tuple[str, ...] = ()  # data, model, optimizer and training
    ids: tuple[str, ...] = ()
    tuned_values: tuple[tuple[str, str], ...] = ()  # lr=0.1, where each strategy has its own; part of the name

    @property
    def tuning(self) -> str:
        return _words(self.tuned_values)

    @property
    def untuned(self) -> str:
        """The name without the tuned values."""
        return self.name.removesuffix(f" ({self.tuning})")

    def without_diverged(self) -> Arm:
        """The same with its diverged trials left out of all numbers."""
        none = np.zeros_like(self.diverged)
        return replace(self, diverged=none, ranks_last=none)

    @functools.cached_property
    def rank(self) -> tuple[float, float]:
        """The sort key of the choice: fewer divergences first, then the better mean criterion; untrained arms last."""
        trials = self.present.sum()
        criterion = self.criterion[np.isfinite(self.criterion)]
        return (
            float(self.diverged.sum() / trials) if trials else np.inf,
            # Rounded, because the mean of the same values in another order differs in its last digits.
            -float(f"{criterion.mean():.12g}") if criterion.size else np.inf,
        )


# What differs between settings, the trials of the setting, and the options in which its arms differ.
OpenSetting = tuple[dict[str, str], pd.DataFrame, tuple[str, ...]]


def setting_name(frame: pd.DataFrame, axes: Mapping[str, str], tuned: Sequence[str] = ()) -> str:
    """`digits with mlp/sgd (lr=0.1)`: the components of a setting, and how it differs from the others."""
    first = frame.iloc[0]
    names = {key: first.get(key) for key in ("data", "model", "optimizer", "train.script")}
    known = {key: str(value) for key, value in names.items() if value is not None and not pd.isna(value)}
    models = "/".join(known[key] for key in ("model", "optimizer", "train.script") if key in known)
    components = " with ".join(part for part in (known.get("data", ""), models) if part)
    best = [f"each at its best {' and '.join(tuned)}"] if tuned else []
    rest = ", ".join([*best, *(f"{axis}={value}" for axis, value in axes.items() if axis not in names)])
    return f"{components} ({rest})" if rest else components


def open_settings(frame: pd.DataFrame, columns: Sequence[str], *, name_all: bool = False) -> Iterator[OpenSetting]:
    """Group trials that differ at most in these columns.

    The values of these columns become part of an arm's name: of as many columns as are needed to tell the arms apart,
    or with `name_all` of all columns that differ.
    """
    fixed = [column for column in setting_columns(frame) if column not in columns]
    axes, codes = splitting(frame, fixed)
    groups = [frame[codes == code] for code in range(codes.max(initial=-1) + 1)]
    for part in sorted(groups, key=lambda group: [_sortable(group[axis].iloc[0]) for axis in axes]):
        differing = {axis: _text(part[axis].iloc[0]) for axis in axes}
        varied = [column for column in columns if part[column].nunique(dropna=False) > 1]
        if not (over := varied if name_all else splitting(part, columns)[0]):
            yield differing, part, ()
            continue
        called = tuple(short_names(over).values()) if name_all else tuple(over)
        tuned_values = [tuple(zip(called, map(_text, values), strict=True)) for values in part[over].to_numpy(object)]
        names = [f"{arm} ({_words(own)})" for arm, own in zip(part["arm"], tuned_values, strict=True)]
        yield differing, part.assign(arm=names, tuned_values=pd.Series(tuned_values, part.index)), called


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path if it is unique: `momentum` for `optimizer.momentum`."""
    tails = [path.rpartition(".")[2] for path in paths]
    return {path: tail if tails.count(tail) == 1 else path for path, tail in zip(paths, tails, strict=True)}


def _words(tuned_values: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{name}={value}" for name, value in tuned_values)


def splitting(frame: pd.DataFrame, columns: Iterable[str]) -> tuple[list[str], NDArray[np.intp]]:
    """The columns that distinguish trials, and the group number of each row.

    A column counts only if it splits a group of the columns before it: `optimizer.momentum`, which only SGD has, adds
    nothing to `optimizer`.
    """
    codes, found = np.zeros(len(frame), np.intp), []
    for column in columns:
        finer = _codes(codes, frame[column])
        if finer.max(initial=0) > codes.max(initial=0):
            found.append(column)
            codes = finer
    return found, codes


def candidates(known: Sequence[Arm]) -> list[Arm]:
    """The arms among which validation data may choose: those that have the same seeds as the arm with the most.

    On other seeds, an arm may look better by luck.
    """
    most = max(known, key=lambda arm: arm.present.sum())
    return [arm for arm in known if (arm.present == most.present).all()]


def nonfinite(frame: pd.DataFrame, metric: Metric) -> Mask:
    """The finished trials without a finite metric or criterion, unless it is not measured at all. They rank last."""
    finished = frame["status"].ne("diverged").to_numpy()
    found = np.zeros(len(frame), bool)
    for name in {metric.name, metric.criterion} - {"epochs_to_target"}:
        if name in frame and frame.loc[finished, name].notna().any():
            found |= np.isnan(_numbers(frame, name))
    return found & finished


def gather(
    frame: pd.DataFrame, metric: Metric, seeds: NDArray[np.generic] | None = None, broken: Mask | None = None
) -> list[Arm]:
    """The arms of one setting, folds averaged within their seed. `seeds` defaults to the seeds of the frame.

    The trials that are `broken` rank last, by default those that are `nonfinite`.
    """
    seeds = np.unique(frame["seed"]) if seeds is None else seeds
    about = frame.drop_duplicates("arm").sort_values(["strategy", "threshold"], na_position="last")
    rows = pd.Index(about["arm"]).get_indexer(frame["arm"]) * len(seeds) + pd.Index(seeds).get_indexer(frame["seed"])
    trials = np.bincount(rows, minlength=len(about) * len(seeds))
    whole = trials >= max(1, frame[FOLD].nunique() if FOLD in frame else 0)

    def means(values: Floats) -> Floats:
        """The means over the folds of each arm and seed; NaN if a fold is not trained or has no value."""
        sums = np.bincount(rows, values, len(trials))
        found: Floats = np.divide(sums, trials, out=np.full(len(trials), np.nan), where=whole)
        return found.reshape(len(about), len(seeds))

    measured = _measured(frame, metric, nonfinite(frame, metric) if broken is None else broken)
    tables = {name: means(values) for name, values in measured.items()}
    ids = frame.sort_values("id").groupby("arm")["id"].agg(tuple).to_dict()  # independent of the order of the files
    columns = setting_columns(frame)
    return [
        _arm(row, {name: table[number] for name, table in tables.items()}, ids[row["arm"]], columns)
        for number, row in enumerate(about.to_dict("records"))
    ]


def setting_columns(frame: pd.DataFrame) -> list[str]:
    names = [str(column) for column in frame]
    options = sorted(name for name in names if name.startswith(SECTIONS) and name != FOLD)
    return [name for name in NAMES if name in names] + options


def codes_of(frame: pd.DataFrame, columns: Iterable[str]) -> NDArray[np.intp]:
    """Group numbers of the rows that agree in all of the columns."""
    codes = np.zeros(len(frame), np.intp)
    for column in columns:
        codes = _codes(codes, frame[column])
    return codes


def _codes(codes: NDArray[np.intp], column: pd.Series) -> NDArray[np.intp]:
    """Split the groups by the values of a column; a missing value is a value too."""
    values, known = pd.factorize(column, use_na_sentinel=False)
    return np.asarray(np.unique(codes * len(known) + values, return_inverse=True)[1])


def _sortable(value: object) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not pd.isna(value):
        return 0, float(value), ""
    return 1, 0.0, str(value)


def _text(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _measured(frame: pd.DataFrame, metric: Metric, broken: Mask) -> dict[str, Floats]:
    """What an arm holds of each trial; of a diverged or broken one no value and no criterion."""
    diverged = frame["status"].eq("diverged").to_numpy()
    values = {name: _numbers(frame, name) for name in MEASURES}
    values |= {"value": _values(frame, metric), "criterion": _numbers(frame, metric.criterion) * metric.criterion_sign}
    values["epochs_to_target"][diverged] = np.nan
    lost = diverged | broken
    is_neutral = metric.name in measures.NEUTRAL
    values["criterion"][lost] = np.nan
    values["value"][lost & (not is_neutral)] = np.nan
    return values | {
        "diverged": lost.astype(float),
        "nonfinite": broken.astype(float),
        "ranks_last": (lost & (not is_neutral)).astype(float),
    }


def _values(frame: pd.DataFrame, metric: Metric) -> Floats:
    values = _numbers(frame, metric.name)
    if metric.name == "epochs_to_target":  # the mean over the trials that reached it would be too optimistic
        values = np.where(np.isnan(values), _numbers(frame, "epochs") + 1, values)
    return values


def _numbers(frame: pd.DataFrame, name: str | None) -> Floats:
    """Numbers of a column; NaN where they are not finite, or so large that their squares would not be."""
    if name is None or name not in frame:
        return np.full(len(frame), np.nan)
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(float, na_value=np.nan).copy()
    values[~(np.abs(values) < LARGEST)] = np.nan
    return values


def _arm(about: Mapping[Any, Any], arrays: Mapping[str, Floats], ids: tuple[str, ...], columns: Sequence[str]) -> Arm:
    threshold = about["threshold"]
    return Arm(
        name=str(about["arm"]),
        strategy=str(about["strategy"]),
        threshold=None if pd.isna(threshold) else float(threshold),
        value=arrays["value"],
        criterion=arrays["criterion"],
        present=~np.isnan(arrays["diverged"]),
        diverged=arrays["diverged"] > 0,
        nonfinite=arrays["nonfinite"] > 0,
        ranks_last=arrays["ranks_last"] > 0,
        measures={measure: arrays[measure] for measure in MEASURES},
        setting=tuple(_text(about[column]) for column in columns),
        ids=ids,
        tuned_values=about.get("tuned_values", ()),
    )
