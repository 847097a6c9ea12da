"""The report as one HTML file: it opens without a network, on a phone and on paper."""

from clipbench.reporting.formats.html.combined_page import render_combined
from clipbench.reporting.formats.html.page import render

__all__ = ["render", "render_combined"]
