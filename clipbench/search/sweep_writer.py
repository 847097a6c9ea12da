"""`sweep.json`: everything that a report says of a search; written anew after every round."""

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

EDGE = 0.02  # of a range: what is found so near its end may lie beyond


def write(
    store: Store,
    search: SearchSettings,
    finalists: Sequence[Finalist],
    studies: Sequence[Study],
    stopped: str,
    storage: str,
) -> SweepDocument:
    """Put it beside the trials."""
    of_contenders = {id(study.contender): study for study in studies}
    known = SweepDocument(
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
        contenders=tuple(_contender(each, of_contenders.get(id(each.contender)), search) for each in finalists),
    )
    store.write_text(sweep_file.FILE, sweep_file.text(known))
    return known


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
    """The hyperparameters whose best value lies at an end of its range, and what to type to widen it."""
    for param in finalist.contender.hyperparameters:
        value = finalist.values.get(param.path)
        if param.choices or not isinstance(value, int | float):
            continue
        place = _place(param, float(value))
        end = "low" if place <= EDGE else "high"
        if not EDGE < place < 1 - EDGE and end in param.can_widen:
            yield RangeEdge(param.path, end, f"--set {_quoted(param.key)}='{_wider(param, end)}'")


def _place(param: Hyperparameter, value: float) -> float:
    """Between 0, the low end of its range, and 1, the high one."""
    scale = math.log if param.log else float
    return (scale(value) - scale(param.low)) / (scale(param.high) - scale(param.low))


def _wider(param: Hyperparameter, end: str) -> str:
    low, high = param.widened(end)
    return f"{{{'log' if param.log else 'linear'}: [{low:.6g}, {high:.6g}]}}"


def _quoted(key: str) -> str:
    """As a shell takes it."""
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
    point, outcome = tried.point, tried.outcome
    return SearchedPoint(
        number=point.number,
        values={path: _plain(value) for path, value in point.values.items()},
        origin=point.origin,
        state=tried.state,
        scores=outcome.scores if outcome else (),
        deviations=outcome.deviations if outcome else (),
        diverged=outcome.diverged if outcome else 0,
        lanes=outcome.lanes if outcome else len(point.trials),
        epochs=outcome.epochs if outcome else 0,
        ids=tuple(trial.id for trial in point.trials),
    )


def _plain(value: object) -> Scalar:
    """A list is a text in a table."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
