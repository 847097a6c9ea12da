"""The steps that clipbench has recorded: those of the trials without clipping."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clipbench.analysis import arms
from clipbench.errors import InputError, Place
from clipbench.logged_norms.logged_run import LoggedRun, Series
from clipbench.plugins.registry import UNCLIPPED
from clipbench.store import Store
from clipbench.store.folder import COLUMNS, TABLES

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
    ends = {row["id"]: row["diverged_step"] for row in trials[["id", "diverged_step"]].to_dict("records")}
    steps = store.arrays("steps", ends.keys())
    if diverged := sum(end > 0 for end in ends.values()):
        notes = (*notes, f"{diverged} of {len(ends)} trials diverged; the steps before are used.")

    def read(column: str) -> list[Series]:
        return list(_series(column))

    def _series(column: str) -> Iterator[Series]:
        for id_ in ends:
            kept = slice(int(ends[id_]) - 1) if ends[id_] > 0 else slice(None)
            if id_ in steps:
                yield Series(steps[id_][column][kept], steps[id_]["step"][kept])

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
