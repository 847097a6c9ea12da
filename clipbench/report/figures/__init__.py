"""The figures of a setting, drawn from its tables and from the courses of its trials."""

from __future__ import annotations

from clipbench.report.figures import cost, courses, divergence, forest, heat, histogram, search, thresholds
from clipbench.report.figures.drawing import Drawing, Figure, sheet
from clipbench.report.series import Courses
from clipbench.report.tables import Report

__all__ = ["Drawing", "Figure", "across", "draw", "of_search", "sheet"]


def draw(report: Report, known: Courses) -> list[list[Figure]]:
    """The figures of each setting, in the order in which they are read."""
    drawn = []
    for setting in report.settings:
        every = (
            forest.figure(setting),
            # What was tuned has another learning rate at each threshold.
            None if setting.tuned else thresholds.figure(setting),
            None if setting.tuned else histogram.figure(setting, known),
            cost.figure(setting),
            courses.learning(setting, known),
            courses.norms(setting, known),
            None if setting.tuned else divergence.figure(setting),
        )
        drawn.append([figure for figure in every if figure])
    return drawn


def across(report: Report) -> list[Figure]:
    """The figures that several settings share."""
    return heat.figures(report)


def of_search(report: Report) -> list[Figure]:
    """The figures of the search behind the arms."""
    return search.draw(report.search) if report.search else []
