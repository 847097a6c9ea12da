"""Every point of a search as CSV in full precision, for programs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from clipbench.store.sweep_file import SearchedContender, SearchedPoint, SweepDocument


def render(swept: SweepDocument) -> str:
    """Write the points as CSV; a missing number is empty."""
    return points(swept).to_csv(index=False, lineterminator="\n")


def points(swept: SweepDocument) -> pd.DataFrame:
    """Return one row for each point: its options, its scores and its state."""
    scored = [name for each in swept.objectives for name in (each.name, f"{each.name} deviation")]
    headers = ["contender", "setting", "point", "origin", "state", *swept.paths, *scored]
    headers += ["diverged", "lanes", "epochs", "winner", "ids"]
    rows = [_row(swept, contender, point) for contender in swept.contenders for point in contender.points]
    return pd.DataFrame(rows, columns=headers, dtype=object)


def _row(swept: SweepDocument, contender: SearchedContender, point: SearchedPoint) -> dict[str, Any]:
    row: dict[str, Any] = {"contender": contender.name, "setting": contender.setting, "point": point.number}
    row |= {"origin": point.origin, "state": point.state}
    row |= {path: point.values[path] for path in swept.paths if path in point.values}
    for number, objective in enumerate(swept.objectives):
        row |= {objective.name: point.score(number), f"{objective.name} deviation": point.deviation(number)}
    row |= {"diverged": point.diverged, "lanes": point.lanes, "epochs": point.epochs}
    return row | {"winner": point.number == contender.winner, "ids": " ".join(point.ids)}
