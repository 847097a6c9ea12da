"""The scores of the search compared with the results on fresh seeds, for each contender."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from clipbench import stats
from clipbench.analysis import arms
from clipbench.analysis.report_model import (
    NOTHING,
    ArmResult,
    Confirmation,
    ContenderResult,
    Metric,
    ReportOptions,
    SearchResult,
    Setting,
)
from clipbench.analysis.verdicts import AT_EDGE
from clipbench.stats import Estimate
from clipbench.store.sweep_file import SearchedContender, SweepDocument

CONFIRMED = "confirmed"
OPTIMISTIC = "optimistic"
PESSIMISTIC = "pessimistic"
NOT_CONFIRMED = "not confirmed"
NOT_SEARCHED = "not searched"

RATE = "lr"
SAME = 1e-9  # deterministic training gives the same on every seed, except for the last digits of a mean


def search_of(swept: SweepDocument | None, records: pd.DataFrame, baseline: str) -> SearchResult | None:
    """The search with the confirmation of its winners, from the records of the store."""
    if swept is None:
        return None
    budget = sum(contender.epochs for contender in swept.contenders) or 1
    every = [_result(contender, swept, records, budget) for contender in swept.contenders]
    settings = list(dict.fromkeys(contender.setting for contender in swept.contenders))
    found = tuple(sorted(every, key=lambda each: (settings.index(each.contender.setting), *_rank(each, baseline))))
    return SearchResult(swept, found)


def _rank(found: ContenderResult, baseline: str) -> tuple[bool, float, float]:
    """The sort key: the baseline first, then by the mean on fresh seeds, then by the score of the search."""
    first = found.confirmations[0]
    values = (-first.measure.sign * value for value in (first.confirmed.mean, first.searched))
    confirmed, searched = (math.inf if math.isnan(value) else value for value in values)
    return found.contender.name != baseline, confirmed, searched


def _result(contender: SearchedContender, swept: SweepDocument, records: pd.DataFrame, budget: int) -> ContenderResult:
    measures = [Metric(each.name, each.higher, None) for each in swept.objectives]
    fresh = [_fresh(records, contender, measure) for measure in measures]
    confirmations = tuple(
        _confirmation(contender, number, measure, stats.estimate(arm.value) if arm else NOTHING)
        for number, (measure, arm) in enumerate(zip(measures, fresh, strict=True))
    )
    seeds = int(fresh[0].present.sum()) if fresh[0] else 0
    diverged = int(fresh[0].diverged.sum()) if fresh[0] else 0
    return ContenderResult(contender, confirmations, seeds, diverged, contender.epochs / budget)


def _fresh(records: pd.DataFrame, contender: SearchedContender, measure: Metric) -> arms.Arm | None:
    """The winner on the fresh seeds, folds averaged within their seed."""
    if records.empty:
        return None
    mine = records[records["id"].isin(contender.confirmed) & records["status"].isin(("finished", "diverged"))]
    known = arms.gather(mine, measure) if len(mine) else []
    return known[0] if known else None


def _confirmation(contender: SearchedContender, number: int, measure: Metric, confirmed: Estimate) -> Confirmation:
    winner = contender.winning
    searched = winner.score(number) if winner else math.nan
    # If a seed diverged, the score contains a penalty and is not a value of the metric.
    bias = _bias(searched if winner and winner.is_steady else math.nan, confirmed, measure.sign)
    return Confirmation(measure, searched, confirmed, bias, _verdict(contender, confirmed, bias))


def _bias(searched: float, truth: Estimate, sign: int) -> Estimate:
    """Score minus mean on fresh seeds. The score has no error, so the interval is that of the fresh seeds."""
    if math.isclose(searched, truth.mean, rel_tol=SAME):
        searched = truth.mean
    ends = sorted(sign * (searched - end) for end in (truth.low, truth.high))
    return Estimate(sign * (searched - truth.mean), ends[0], ends[1], truth.n)


def _verdict(contender: SearchedContender, confirmed: Estimate, bias: Estimate) -> str:
    if not contender.hyperparameters:
        return NOT_SEARCHED
    if not confirmed.n:
        return NOT_CONFIRMED
    if math.isnan(bias.half_width):
        return ""
    return OPTIMISTIC if bias.low > 0 else PESSIMISTIC if bias.high < 0 else CONFIRMED


def as_found(trained: pd.DataFrame, options: ReportOptions) -> pd.DataFrame:
    """The trials of the winners and the baseline; all trials if the learning rate was not searched."""
    if options.swept is None or RATE not in options.swept.paths or trained.empty:
        return trained
    found = {id_ for contender in options.swept.contenders for id_ in contender.confirmed}
    baseline = trained["arm"].eq(options.baseline) | trained["strategy"].eq(options.baseline)
    return trained[trained["id"].isin(found) | baseline]


def open_columns(trained: pd.DataFrame, options: ReportOptions) -> list[str]:
    """The columns whose values the search chose for each strategy; they do not separate settings."""
    known = arms.setting_columns(trained)
    return [path for path in options.swept.paths if path in known] if options.swept else []


def at_equal_rates(trained: pd.DataFrame, options: ReportOptions) -> Iterator[arms.OpenSetting]:
    """The settings in which the winners were also trained at the learning rate of the baseline."""
    others = set(trained["id"]).difference(as_found(trained, options)["id"]) if len(trained) else set()
    if others:
        searched = [path for path in open_columns(trained, options) if path != RATE]
        for axes, part, over in arms.open_settings(trained, searched, name_all=True):
            if not others.isdisjoint(part["id"]):
                yield {**axes, RATE: f"{part[RATE].iloc[0]:g}"}, part, over


def with_edges(setting: Setting, swept: SweepDocument | None) -> Setting:
    """The setting with a flag for each arm that the search found at the edge of its range."""
    contenders = swept.contenders if swept else ()
    at_edge = {id_ for contender in contenders if contender.edges for id_ in contender.confirmed}

    def flagged(row: ArmResult) -> ArmResult:
        return replace(row, flags=(AT_EDGE, *row.flags)) if at_edge and at_edge.issuperset(row.ids) else row

    return replace(setting, rows=tuple(map(flagged, setting.rows)), main=tuple(map(flagged, setting.main)))
