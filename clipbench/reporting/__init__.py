"""From the store's records to what a person reads: tables, verdicts and sentences, in every format."""

from clipbench.analysis.compare import compare
from clipbench.analysis.report_model import ArmResult, Metric, Report, ReportOptions, Setting

__all__ = ["ArmResult", "Metric", "Report", "ReportOptions", "Setting", "compare"]
