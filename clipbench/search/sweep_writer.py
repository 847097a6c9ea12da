"""Writes `sweep.json` from the studies after every round."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from clipbench.planning.contender import Hyperparameter
from clipbench.search.confirm import Finalist
from clipbench.search.settings import SearchSettings
from clipbench.search.storage import JOURNAL
from clipbench.search.study import Study, TriedPoint
from clipbench.store import Store, sweep_file
from clipbench.store.json_document import Scalar
from clipbench.store.sweep_file import (
    RangeEdge,
    SearchedContender,
    SearchedHyperparameter,
    SearchedPoint,
    SweepDocument,
)

EDGE = 0.02  # share of a range: a best value so near the end suggests a wider range


def write(
    store: Store,
    search: SearchSettings,
    finalists: Sequence[Finalist],
    studies: Sequence[Study],
    stopped: str,
    storage: str,
) -> SweepDocument:
    """Write the file and return its document."""
    by_contender = {id(study.contender): study for study in studies}
    document = SweepDocument(
        format=sweep_file.FORMAT,
        experiment=search.experiment,
        sampler=search.sampler,
        pruner=search.pruner,
        trials=search.trials,
        search_seeds=search.seeds,
        confirm_seeds=search.confirm_seeds,
        objectives=search.objectives,
        storage=storage or JOURNAL,
        stopped=stopped,
        contenders=tuple(_contender(each, by_contender.get(id(each.contender)), search) for each in finalists),
    )
    store.write_text(sweep_file.FILE, sweep_file.text(document))
    return document


def _contender(finalist: Finalist, study: Study | None, search: SearchSettings) -> SearchedContender:
    contender = finalist.contender
    return SearchedContender(
        name=contender.name,
        setting=contender.setting,
        label=contender.label,
        study=study.name if study else "",
        hyperparameters=tuple(_hyperparameter(param) for param in contender.hyperparameters),
        points=tuple(_point(tried) for tried in study.tried()) if study else (),
        importances=study.importances() if study else {},
        winner=finalist.number,
        pareto=tuple(study.pareto()) if study else (),
        edges=tuple(edges(finalist)),
        confirmed=tuple(trial.id for trial in finalist.trials(search)) if finalist.is_confirmed else (),
    )


def edges(finalist: Finalist) -> Iterator[RangeEdge]:
    """Yield the ends of ranges at which the best values lie, with the option that widens the range."""
    for param in finalist.contender.hyperparameters:
        value = finalist.values.get(param.path)
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
    return SearchedHyperparameter(
        param.path,
        param.key,
        param.low,
        param.high,
        param.log,
        param.whole,
        tuple(map(_plain, param.choices)),
    )


def _point(tried: TriedPoint) -> SearchedPoint:
    point, result = tried.point, tried.result
    return SearchedPoint(
        number=point.number,
        values={path: _plain(value) for path, value in point.values.items()},
        origin=point.origin,
        state=tried.state,
        scores=result.scores if result else (),
        deviations=result.deviations if result else (),
        diverged=result.diverged if result else 0,
        lanes=result.lanes if result else len(point.trials),
        epochs=result.epochs if result else 0,
        ids=tuple(trial.id for trial in point.trials),
    )


def _plain(value: object) -> Scalar:
    """Return a list as text."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
