"""From the store's records to what a person reads: tables, verdicts and sentences, in every format."""

from clipbench.report.comparison import compare
from clipbench.report.tables import Metric, Options, Report, Row, Setting

__all__ = ["Metric", "Options", "Report", "Row", "Setting", "compare"]
