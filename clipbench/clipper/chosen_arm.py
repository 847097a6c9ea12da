"""The arm that a report of clipbench recommends, or that of a strategy at its best threshold."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipbench.errors import InputError, Place, did_you_mean

Row = Mapping[str, Any]


def chosen_arm(path: str | os.PathLike[str], strategy: str | None = None, setting: str | None = None) -> str:
    """Return the name of an arm from the `report.json` of a folder, such as `norm@1.0`."""
    file = Path(path)
    file = file if file.suffix == ".json" else file / "report.json"
    place = Place(str(file))
    found = _setting(_settings(file, place), setting, place)
    return _of_strategy(found, strategy, place) if strategy else _recommended(found, place)


def _settings(file: Path, place: Place) -> list[dict[str, Any]]:
    try:
        document = json.loads(file.read_text("utf-8"))
        settings: list[dict[str, Any]] = document["settings"]
    except FileNotFoundError:
        remedy = "Run `clipbench run` or `clipbench report`, which write it to results/<name>."
        raise InputError.at(place, "there is no such report.", remedy) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = f"is no report of clipbench: {type(error).__name__}: {error}."
        raise InputError.at(place, text, "Run `clipbench report` again.") from None
    if not settings:
        raise InputError.at(place, "the report compares nothing yet.", "Train the experiment first.")
    return settings


def _setting(settings: Sequence[dict[str, Any]], wanted: str | None, place: Place) -> dict[str, Any]:
    """Return the setting with that label; the only one if none is wanted."""
    labels = [str(each["label"] or each["words"]) for each in settings]
    chosen = [each for each, label in zip(settings, labels, strict=True) if wanted in (label, each["words"])]
    if wanted is None and len(settings) == 1:
        chosen = [*settings]
    if len(chosen) == 1:
        return chosen[0]
    if wanted is None:
        text = f"the report has {len(settings)} settings: {'; '.join(labels)}."
        raise InputError.at(place, text, f"Write setting={labels[0]!r}, or another one of them.")
    raise InputError.at(place, f"there is no setting {wanted!r}.", did_you_mean(wanted, labels))


def _recommended(setting: Row, place: Place) -> str:
    arm = setting["answer"]["arm"]
    rows = [row for row in setting["rows"] if row["arm"] == arm]
    if not rows:
        strategies = ", ".join(dict.fromkeys(row["strategy"] for row in setting["rows"]))
        text = f"the report recommends no arm: {setting['answer']['verdict']}."
        raise InputError.at(place, text, f"Name a strategy to take its best threshold: {strategies}.")
    return _without_tuning(rows[0])


def _of_strategy(setting: Row, strategy: str, place: Place) -> str:
    """Return the arm that the main table shows for a strategy; an arm may be named too."""
    rows = setting["rows"]
    named = [row for row in rows if strategy in (row["arm"], _without_tuning(row))]
    mine = named or [row for row in rows if row["strategy"] == strategy]
    if not mine:
        text = f"the report has no strategy {strategy!r}."
        raise InputError.at(place, text, did_you_mean(strategy, dict.fromkeys(row["strategy"] for row in rows)))
    chosen = mine if named else [row for row in mine if row["shown"]]
    if len(chosen) != 1:
        arms = ", ".join(row["arm"] for row in mine)
        text = f"no threshold of {strategy} is chosen, because there is no validation data: {arms}."
        raise InputError.at(place, text, f"Write strategy={mine[0]['arm']!r}, or another one of them.")
    return _without_tuning(chosen[0])


def _without_tuning(row: Row) -> str:
    """Return the name of an arm without the learning rate that was tuned with it: `norm@1.0 (lr=0.1)`."""
    return str(row["arm"]).removesuffix(f" ({row['tuning']})")
