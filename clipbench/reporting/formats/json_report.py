"""The report as JSON, for programs: the report tree, with its sentences; what is not a finite number is null."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from clipbench.analysis.report_model import Report
from clipbench.analysis.strategy_ranks import Combined, Ranks
from clipbench.errors import json_without_control
from clipbench.reporting import answer, claim_evidence, notes, search_sentences, use_it
from clipbench.reporting.chapters import chapters


def as_dict(report: Report) -> dict[str, Any]:
    """The report as JSON-able values."""
    values: dict[str, Any] = _plain(Report, report)
    values["notes"] = notes.of_report(report)
    for setting, described in zip(report.settings, values["settings"], strict=True):
        described["main"] = [row.arm for row in setting.main]  # each is one of `rows`
        short = answer.answer(setting)
        described |= {"label": setting.label, "answer": {"verdict": short.verdict, "arm": short.arm}}
        described["use"] = {"sentence": use_it.sentence(setting), "code": {}}
        if row := use_it.recommended(setting):
            described["use"]["code"] = {code.library: code.text or None for code in use_it.coded(row).codes}
    searched = [values["search"]] if report.search else []
    for chapter, described in zip(chapters(report), [*values["settings"], *searched], strict=True):
        described |= {"headline": chapter.headline, "notes": chapter.notes}
    for claim, described in zip(report.claims, values["claims"], strict=True):
        described["reason"] = claim_evidence.reason(claim)
    if report.search:
        for contender, described in zip(report.search.found, values["search"]["found"], strict=True):
            flags = search_sentences.flags(contender, report.search.swept)
            described["flags"] = [{"words": flag.words, "remedy": flag.remedy} for flag in flags]
    return values


def combined_as_dict(combined: Combined) -> dict[str, Any]:
    """Every report, and the ranks over them; null where nothing can be ranked."""
    ranks = _plain(Ranks, combined.ranks) if combined.ranks else None
    return {"experiments": [as_dict(report) for report in combined.reports], "ranks": ranks}


def render(report: Report) -> str:
    return json_without_control(json.dumps(as_dict(report), indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def _plain(kind: type[Any], value: object) -> Any:
    return json.loads(TypeAdapter(kind).dump_json(value))
