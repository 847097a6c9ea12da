"""From the store's records to what a person reads: tables, verdicts and sentences, in every format."""

from clipbench.analysis.compare import compare
from clipbench.analysis.report_model import Metric, Options, Report, Row, Setting

__all__ = ["Metric", "Options", "Report", "Row", "Setting", "compare"]
