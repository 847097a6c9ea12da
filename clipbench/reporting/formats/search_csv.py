"""Every point of a search as CSV in full precision, for pandas."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from clipbench.store.sweep_file import SearchedContender, SearchedPoint, SweepDocument


def render(swept: SweepDocument) -> str:
    """One row a point: where it is, what it scored, what became of it; a missing number is empty."""
    scored = [name for each in swept.objectives for name in (each.name, f"{each.name} deviation")]
    headers = ["contender", "setting", "point", "origin", "state", *swept.paths, *scored]
    headers += ["diverged", "lanes", "epochs", "winner", "ids"]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, headers, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(swept, contender, point) for contender in swept.contenders for point in contender.points)
    return buffer.getvalue()


def _row(swept: SweepDocument, contender: SearchedContender, point: SearchedPoint) -> dict[str, Any]:
    row: dict[str, Any] = {"contender": contender.name, "setting": contender.setting, "point": point.number}
    row |= {"origin": point.origin, "state": point.state}
    row |= {path: point.values[path] for path in swept.paths if path in point.values}
    for number, objective in enumerate(swept.objectives):
        row |= {objective.name: point.score(number), f"{objective.name} deviation": point.deviation(number)}
    row |= {"diverged": point.diverged, "lanes": point.lanes, "epochs": point.epochs}
    row |= {"winner": point.number == contender.winner, "ids": " ".join(point.ids)}
    return {key: "" if isinstance(each, float) and math.isnan(each) else each for key, each in row.items()}
