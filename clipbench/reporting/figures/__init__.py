"""The figures of a setting, drawn from its tables and from the courses of its trials."""

from __future__ import annotations

from clipbench.analysis.curves import CurvesByArm
from clipbench.analysis.report_model import Report
from clipbench.reporting.figures import (
    cost,
    divergence_map,
    forest,
    heat_map,
    histogram,
    search,
    thresholds,
    training_curves,
)
from clipbench.reporting.figures.drawing import Drawing, Figure, sheet

__all__ = ["Drawing", "Figure", "across", "draw", "of_search", "sheet"]


def draw(report: Report, known: CurvesByArm) -> list[list[Figure]]:
    """The figures of each setting, in the order in which they are read."""
    drawn = []
    for setting in report.settings:
        every = (
            forest.figure(setting),
            # What was tuned has another learning rate at each threshold.
            None if setting.tuned else thresholds.figure(setting),
            None if setting.tuned else histogram.figure(setting, known),
            cost.figure(setting),
            training_curves.learning(setting, known),
            training_curves.norms(setting, known),
            None if setting.tuned else divergence_map.figure(setting),
        )
        drawn.append([figure for figure in every if figure])
    return drawn


def across(report: Report) -> list[Figure]:
    """The figures that several settings share."""
    return heat_map.figures(report)


def of_search(report: Report) -> list[Figure]:
    """The figures of the search behind the arms."""
    return search.draw(report.search) if report.search else []
