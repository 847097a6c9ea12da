"""The steps that clipbench has recorded: those of the trials without clipping."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clipbench.analysis import arms
from clipbench.errors import InputError, Place
from clipbench.logged_norms.logged_run import LoggedRun, Series
from clipbench.plugins.registry import UNCLIPPED
from clipbench.store.folder import COLUMNS, TABLES, Store

if TYPE_CHECKING:
    from pandas import DataFrame

NORM = "grad_norm/pre"
USED = ("finished", "diverged")


def results_folder_of(path: Path) -> Path | None:
    """Return the results folder that a path names: it, a table in it, or a file of a table; None if it is another."""
    for folder, table in ((path, path / TABLES[0]), (path.parent, path), (path.parent.parent, path.parent)):
        if table.name in TABLES and (table / f"{COLUMNS}.parquet").is_file():
            return folder
    return None


def results_folders_in(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir() if each.is_dir() and results_folder_of(each))


def read_results(folder: Path) -> list[LoggedRun]:
    """Return a run for each setting, with a series for each trial without clipping, up to where it diverged."""
    store = Store(folder)
    records = store.records()
    trained = records[records["status"].isin(USED)]
    if trained.empty:
        raise InputError.at(Place(str(folder)), "no trial has been trained yet.", "Run `clipbench run` first.")
    return [_run(store, part, _name(folder, part, axes)) for axes, part, _ in arms.open_settings(trained, ())]


def _run(store: Store, setting: DataFrame, name: str) -> LoggedRun:
    arm, notes = _arm(setting)
    trials = setting[setting["arm"] == arm]
    steps = store.arrays("steps", list(trials["id"]))
    ends = dict(zip(trials["id"], trials["diverged_step"], strict=True)) if "diverged_step" in trials else {}
    ends = {id_: int(end) for id_, end in ends.items() if end > 0}
    if ends:
        notes = (*notes, f"{len(ends)} of {len(trials)} trials diverged; the steps before are used.")

    def read(column: str) -> list[Series]:
        known = {id_: table for id_, table in steps.items() if column in table}
        kept = {id_: slice(ends[id_] - 1 if id_ in ends else None) for id_ in known}
        return [Series(table[column][kept[id_]], table["step"][kept[id_]]) for id_, table in known.items()]

    columns = dict.fromkeys(name for table in steps.values() for name in table if name not in ("seed", "step"))
    return LoggedRun(f"{name}, arm {arm}", tuple(columns), read, NORM, notes)


def _arm(setting: DataFrame) -> tuple[str, tuple[str, ...]]:
    """Return the arm without clipping; else that which clips the fewest steps, and a note that says so."""
    if UNCLIPPED in set(setting["arm"]):
        return UNCLIPPED, ()
    shares = setting.groupby("arm")["clip/fired_share"].mean()
    arm = str(shares.idxmin())
    share = f"{shares.min():.1%}"
    return arm, (
        f"there is no trial without clipping; these norms are those before {arm} clipped {share} of the steps.",
    )


def _name(folder: Path, part: DataFrame, axes: dict[str, str]) -> str:
    return f"{folder.name}, {arms.setting_name(part, axes)}"
