"""The report as one HTML file: it opens without a network, on a phone and on paper."""

from clipbench.report.html.page import render

__all__ = ["render"]
