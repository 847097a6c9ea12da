"""Which points of a search are pruned at the end of an epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from clipbench.core.records import Records
from clipbench.execution.protocol import ChoosePruned, EpochReport
from clipbench.search import scoring
from clipbench.search.study import Point


class PointPruner:
    """Reports points to their studies at the end of each epoch, and prunes those that Optuna's pruner rejects.

    Reports of the same epoch get the same answer.
    """

    def __init__(self, points: Sequence[Point], prunes: bool) -> None:
        self._points = {trial.id: each for each in points for trial in each.trials}
        self._prunes = prunes
        self._pruned: dict[tuple[Point, int], bool] = {}  # by point and epoch

    @property
    def choose_pruned(self) -> ChoosePruned | None:
        return self._choose_pruned if self._prunes else None

    def _choose_pruned(self, reports: Sequence[EpochReport]) -> list[set[str]]:
        measured = [list(self._report(report)) for report in reports]  # all, before the first one is judged
        return [
            {trial.id for each in points for trial in each.trials if self._is_pruned(each, report.epoch)}
            for report, points in zip(reports, measured, strict=True)
        ]

    def tagged(self, records: Records) -> Records:
        """Add the study and the number of the point to the records, as tags for MLflow."""
        points = [self._points[str(id_)] for id_ in records.records["id"]]
        tags = {
            "study": np.array([each.study.name for each in points], dtype=object),
            "point": np.array([str(each.number) for each in points], dtype=object),
        }
        return replace(records, records={**records.records, **tags})

    def _report(self, report: EpochReport) -> Iterator[Point]:
        """Report to Optuna, and yield, the points whose trials all have the objective in this epoch.

        With `evaluate_every`, an epoch without validation says nothing about a point.
        """
        for each in dict.fromkeys(self._points[id_] for id_ in report.measured):
            objective = each.study.search.objectives[0]
            found = [report.measured.get(trial.id, {}).get(objective.name) for trial in each.trials]
            values = [value for value in found if value is not None]
            if len(values) == len(found):
                worst = math.nan if np.isfinite(values).all() else each.study.worst(each)[0]
                each.study.report(each, report.epoch, scoring.running_score(values, objective, worst))
                yield each

    def _is_pruned(self, each: Point, epoch: int) -> bool:
        if (each, epoch) not in self._pruned:
            self._pruned[each, epoch] = each.study.should_prune(each)
        return self._pruned[each, epoch]
