"""The report as plain values and as JSON, for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clipbench.analysis.report_model import Report
from clipbench.analysis.strategy_ranks import Combined


def as_dict(report: Report) -> dict[str, Any]:
    """The whole report as JSON-able values; what is not a finite number is null."""
    values = asdict(report)
    values["settings"] = [
        {**setting, "main": [row["arm"] for row in setting["main"]]} for setting in values["settings"]
    ]
    cleaned = _clean(values)
    assert isinstance(cleaned, dict)
    return cleaned


def combined_as_dict(combined: Combined) -> dict[str, Any]:
    """Every report, and the ranks over them; null where nothing can be ranked."""
    ranks = _clean(asdict(combined.ranks)) if combined.ranks else None
    return {"experiments": [as_dict(report) for report in combined.reports], "ranks": ranks}


def render(report: Report) -> str:
    return json.dumps(as_dict(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _clean(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value
