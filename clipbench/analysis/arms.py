"""From the store's records to settings and arms: which trials belong together, as arrays over seeds."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipbench.analysis.report_model import Metric
from clipbench.config.tunable import is_tunable
from clipbench.reporting import numbers
from clipbench.stats import Floats

Mask = NDArray[np.bool_]
NAMES = ("data", "model", "optimizer", "lr")
SECTIONS = ("data.", "model.", "optimizer.", "train.")
FOLD = "data.fold"  # averaged within its seed, so it makes no setting of its own
MEASURES = ("clip/fired_share", "clip/fraction", "clip/cosine", "grad_norm/pre_p50", "step_us", "epochs_to_target")


@dataclass(frozen=True, eq=False)
class Arm:
    """A strategy at one threshold; arrays have one place a seed of the setting, NaN where it has none."""

    name: str
    strategy: str
    threshold: float | None
    value: Floats  # of the metric; NaN for a diverged trial
    criterion: Floats
    present: Mask  # finished or diverged
    diverged: Mask
    measures: Mapping[str, Floats]
    ids: tuple[str, ...] = ()
    place: tuple[tuple[str, str], ...] = ()  # lr=0.1, where that is chosen for each strategy alone; part of the name

    @property
    def tuning(self) -> str:
        return _words(self.place)

    @property
    def untuned(self) -> str:
        """The name without its place: what arms that differ in nothing else share."""
        return self.name.removesuffix(f" ({self.tuning})")

    @functools.cached_property
    def rank(self) -> tuple[float, float]:
        """Lowest first: an arm that diverged on fewer seeds, then the better mean (of a criterion turned
        so that more is better); arms that never ran come last."""
        trials = self.present.sum()
        criterion = self.criterion[np.isfinite(self.criterion)]
        return (
            float(self.diverged.sum() / trials) if trials else np.inf,
            # Means of the same values in another order differ in their last digits and still tie.
            -float(f"{criterion.mean():.12g}") if criterion.size else np.inf,
        )


def settings(frame: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """The trials by what is the same within a comparison, each group with what sets it apart."""
    axes, codes = splitting(frame, setting_columns(frame))
    groups = [frame[codes == code] for code in range(codes.max(initial=-1) + 1)]
    for group in sorted(groups, key=lambda group: [_sortable(group[axis].iloc[0]) for axis in axes]):
        yield {axis: _text(group[axis].iloc[0]) for axis in axes}, group


Open = tuple[dict[str, str], pd.DataFrame, tuple[str, ...]]


def tuned_settings(frame: pd.DataFrame) -> Iterator[Open]:
    """The same with what can be tuned left open; without a setting that has nothing to choose."""
    tunable = [column for column in setting_columns(frame) if is_tunable(column)]
    yield from (found for found in open_settings(frame, tunable) if found[2])


def open_settings(frame: pd.DataFrame, columns: Sequence[str], *, name_all: bool = False) -> Iterator[Open]:
    """Trials that differ in these columns at most, what sets them apart from others, and the columns that do differ.

    The name of an arm says where it stands on these: each strategy may take a place of its own. With `name_all` it says
    so of all that differ, and not only of as many as tell the arms apart.
    """
    frame = frame.reset_index(drop=True)
    for axes, part in settings(frame.drop(columns=list(columns))):
        whole = frame.loc[part.index]
        varied = [column for column in columns if whole[column].nunique(dropna=False) > 1]
        if not (over := varied if name_all else splitting(whole, columns)[0]):
            yield axes, whole, ()
            continue
        called = tuple(numbers.short(over).values()) if name_all else tuple(over)
        places = [tuple(zip(called, map(_text, values), strict=True)) for values in whole[over].to_numpy(object)]
        names = [f"{arm} ({_words(place)})" for arm, place in zip(whole["arm"], places, strict=True)]
        yield axes, part.assign(arm=names, place=pd.Series(places, part.index)), called


def _words(place: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{name}={value}" for name, value in place)


def splitting(frame: pd.DataFrame, columns: Iterable[str]) -> tuple[list[str], NDArray[np.intp]]:
    """Which of the columns set trials apart, and the group of each row.

    A column does so only if it splits what the columns before it did not: `optimizer.momentum`, which only SGD
    has, adds nothing to `optimizer`.
    """
    codes, found = np.zeros(len(frame), np.intp), []
    for column in columns:
        finer = _codes(codes, frame[column])
        if finer.max(initial=0) > codes.max(initial=0):
            found.append(column)
            codes = finer
    return found, codes


def gather(frame: pd.DataFrame, metric: Metric, seeds: NDArray[np.generic] | None = None) -> list[Arm]:
    """The arms of one setting, folds averaged within their seed; their own seeds if none are given."""
    cells = _cells(frame, metric)
    seeds = np.unique(frame["seed"]) if seeds is None else seeds
    about = frame.drop_duplicates("arm").sort_values(["strategy", "threshold"], na_position="last")
    tables = {
        str(name): cells[name].unstack("seed").reindex(index=about["arm"], columns=seeds).to_numpy(float)
        for name in cells
    }
    ids = frame.sort_values("id").groupby("arm")["id"].agg(tuple).to_dict()  # whatever the order of the files
    return [
        _arm(row, {name: table[number] for name, table in tables.items()}, ids[row["arm"]])
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
    """Group numbers from 0 that also tell apart the values of the column; missing is a value too."""
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


def _cells(frame: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """One row an arm and seed. A seed counts as diverged if any of its folds did, and only with all of its folds."""
    values = pd.DataFrame({name: _numbers(frame, name) for name in MEASURES})
    values["value"] = _values(frame, metric)
    values["criterion"] = _numbers(frame, metric.criterion) * metric.criterion_sign
    diverged = frame["status"].eq("diverged").to_numpy()
    values.loc[diverged, ["value", "criterion"]] = np.nan
    values["diverged"] = diverged.astype(float)
    values["arm"], values["seed"] = frame["arm"].to_numpy(), frame["seed"].to_numpy()
    groups = values.groupby(["arm", "seed"])
    cells = groups.mean()
    cells["diverged"] = groups["diverged"].max()
    cells.loc[cells["diverged"] > 0, ["value", "criterion"]] = np.nan
    folds = frame[FOLD].nunique() if FOLD in frame else 0
    return cells[groups.size() >= folds]


def _values(frame: pd.DataFrame, metric: Metric) -> Floats:
    values = _numbers(frame, metric.name)
    if metric.name == "epochs_to_target":  # a mean over those that reached it would flatter the arm
        values = np.where(np.isnan(values), _numbers(frame, "epochs"), values)
    return values


def _numbers(frame: pd.DataFrame, name: str | None) -> Floats:
    """Finite numbers of a column, NaN elsewhere and where there is no such column."""
    if name is None or name not in frame:
        return np.full(len(frame), np.nan)
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(float, na_value=np.nan).copy()
    values[~np.isfinite(values)] = np.nan
    return values


def _arm(about: Mapping[Any, Any], arrays: Mapping[str, Floats], ids: tuple[str, ...]) -> Arm:
    threshold = about["threshold"]
    return Arm(
        name=str(about["arm"]),
        strategy=str(about["strategy"]),
        threshold=None if pd.isna(threshold) else float(threshold),
        value=arrays["value"],
        criterion=arrays["criterion"],
        present=~np.isnan(arrays["diverged"]),
        diverged=arrays["diverged"] > 0,
        measures={measure: arrays[measure] for measure in MEASURES},
        ids=ids,
        place=about.get("place", ()),
    )
