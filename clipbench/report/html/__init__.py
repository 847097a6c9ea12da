"""The report as one HTML file: it opens without a network, on a phone and on paper."""

from clipbench.report.html.combined import render_combined
from clipbench.report.html.page import render

__all__ = ["render", "render_combined"]
