"""The figures of a report, drawn from its tables and from the training curves of its trials."""

from __future__ import annotations

from collections.abc import Collection

from clipbench.analysis.curves import CurvesByArm
from clipbench.analysis.report_model import Report
from clipbench.reporting.figures import (
    cost,
    divergence_map,
    forest,
    heat_map,
    histogram,
    search_options,
    search_points,
    thresholds,
    training_curves,
)
from clipbench.reporting.figures.drawing import Figure

__all__ = ["Figure", "across", "draw", "of_search"]


def draw(report: Report, curves: CurvesByArm, on_norm: Collection[str] = ()) -> list[list[Figure]]:
    """The figures of each setting, in reading order. `on_norm`: the rules whose threshold is a gradient norm."""
    drawn = []
    for setting in report.settings:
        every = (
            forest.figure(setting),
            # In a tuned setting each threshold has another learning rate.
            None if setting.tuned else thresholds.figure(setting),
            None if setting.tuned else histogram.figure(setting, curves, on_norm),
            cost.figure(setting),
            training_curves.learning(setting, curves),
            training_curves.norms(setting, curves),
            None if setting.tuned else divergence_map.figure(setting),
        )
        drawn.append([figure for figure in every if figure])
    return drawn


def across(report: Report) -> list[Figure]:
    """The figures that several settings share."""
    return heat_map.figures(report)


def of_search(report: Report) -> list[Figure]:
    """The figures of the search behind the arms."""
    search = report.search
    if search is None:
        return []
    objectives = range(len(search.measures))
    every = (
        *(make(search, number) for number in objectives for make in (search_points.history, search_options.slices)),
        search_options.importance(search),
        search_options.parallel(search),
        *(search_points.objectives(search, number) for number in objectives[1:]),
    )
    return [figure for figure in every if figure]
