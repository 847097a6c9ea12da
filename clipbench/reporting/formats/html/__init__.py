"""The report as one HTML file: it opens without a network, on a phone and on paper."""

from clipbench.reporting.formats.html.page import render, render_combined

__all__ = ["render", "render_combined"]
