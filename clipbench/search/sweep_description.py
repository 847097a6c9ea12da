"""Describes a search as it is written to `sweep.json`, from its studies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from clipbench.planning.contender import Contender, Hyperparameter
from clipbench.search.settings import SearchSettings
from clipbench.search.stored_values import to_stored
from clipbench.search.study import Study
from clipbench.store import sweep_file
from clipbench.store.sweep_file import (
    RangeEdge,
    SearchedContender,
    SearchedHyperparameter,
    SearchedPoint,
    SweepDocument,
)

EDGE = 0.02  # share of a range: a best value so near the end suggests a wider range


def describe(
    search: SearchSettings, contenders: Sequence[Contender], studies: Sequence[Study], stopped: str, storage: str
) -> SweepDocument:
    """Return the document of a search, before its winners are confirmed."""
    by_label = {study.contender.label: study for study in studies}
    return SweepDocument(
        format=sweep_file.FORMAT,
        experiment=search.experiment,
        sampler=search.sampler,
        pruner=search.pruner,
        trials=search.trials,
        search_seeds=search.seeds,
        confirm_seeds=search.confirm_seeds,
        objectives=search.objectives,
        storage=storage,
        stopped=stopped,
        contenders=tuple(_contender(each, by_label.get(each.label)) for each in contenders),
    )


def _contender(contender: Contender, study: Study | None) -> SearchedContender:
    winner = study.winner() if study else None
    return SearchedContender(
        name=contender.name,
        setting=contender.setting,
        label=contender.label,
        study=study.name if study else "",
        hyperparameters=tuple(_hyperparameter(param) for param in contender.hyperparameters),
        points=tuple(study.tried()) if study else (),
        importances=study.importances() if study else {},
        winner=winner.number if winner else None,
        pareto=tuple(study.pareto()) if study else (),
        edges=tuple(edges(contender, winner)) if winner else (),
        confirmed=(),
    )


def edges(contender: Contender, winner: SearchedPoint) -> Iterator[RangeEdge]:
    """Yield the ends of ranges at which the best values lie, with the option that widens the range."""
    for param in contender.hyperparameters:
        value = winner.values[param.path]
        if param.choices or not isinstance(value, int | float):
            continue
        position = _position(param, float(value))
        end = "low" if position <= EDGE else "high"
        if not EDGE < position < 1 - EDGE and end in param.can_widen:
            yield RangeEdge(param.path, end, f"--set {_quoted(param.key)}='{_wider(param, end)}'")


def _position(param: Hyperparameter, value: float) -> float:
    """Return the position of a value between 0, the low end of its range, and 1, the high end."""
    scale = math.log if param.log else float
    return (scale(value) - scale(param.low)) / (scale(param.high) - scale(param.low))


def _wider(param: Hyperparameter, end: str) -> str:
    low, high = param.widened(end)
    return f"{{{'log' if param.log else 'linear'}: [{low:.6g}, {high:.6g}]}}"


def _quoted(key: str) -> str:
    """Quote a key for the shell."""
    return f"'{key}'" if '"' in key or " " in key else key


def _hyperparameter(param: Hyperparameter) -> SearchedHyperparameter:
    choices = tuple(map(to_stored, param.choices))
    return SearchedHyperparameter(param.path, param.key, param.low, param.high, param.log, param.whole, choices)
