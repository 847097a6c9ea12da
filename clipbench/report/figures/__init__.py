"""The figures of a setting, drawn from its tables and from the courses of its trials."""

from __future__ import annotations

from clipbench.report.figures import courses, divergence, forest, thresholds
from clipbench.report.figures.drawing import Drawing, Figure, sheet
from clipbench.report.series import Courses
from clipbench.report.tables import Report

__all__ = ["Drawing", "Figure", "draw", "sheet"]


def draw(report: Report, known: Courses) -> list[list[Figure]]:
    """The figures of each setting, in the order in which they are read."""
    drawn = []
    for number, setting in enumerate(report.settings):
        every = (
            forest.figure(setting),
            thresholds.figure(setting),
            courses.learning(setting, number, known),
            courses.norms(setting, number, known),
            divergence.figure(setting),
        )
        drawn.append([figure for figure in every if figure])
    return drawn
