"""The claims of an experiment, tested on its trials: supported, refuted, inconclusive or untestable."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipbench import stats
from clipbench.analysis.claim_cases import Cases, UntestableClaim, cases
from clipbench.analysis.report_model import ClaimResult, Metric, ReportOptions
from clipbench.reporting import numbers
from clipbench.stats import LEVEL, Estimate

if TYPE_CHECKING:
    from clipbench.config.claim_language import Expectation
    from clipbench.config.sections import Claim

SUPPORTED, REFUTED, INCONCLUSIVE, UNTESTABLE = "supported", "refuted", "inconclusive", "untestable"
POWER = 0.8
NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class Finding:
    """What the trials show of one claim, before the correction for the others."""

    p: float
    tendency: str  # what a small p would mean
    reason: str
    certain: bool = False  # whatever p: a counterexample, or identity
    effect: float = math.nan  # in standard deviations, of what the test asks: more seeds show a larger one sooner
    level: float = LEVEL
    power: float = POWER


def answer(frame: pd.DataFrame, options: ReportOptions) -> tuple[ClaimResult, ...]:
    """Every claim, its p corrected by Holm over all that can be tested."""
    tested = [_tested(frame, claim, expectation, options) for claim, expectation in options.claims]
    corrected = stats.holm([finding.p for _, finding in tested])
    count = int(np.isfinite(corrected).sum())
    return tuple(
        _judged(answered, finding, float(p), max(count, 1))
        for (answered, finding), p in zip(tested, corrected, strict=True)
    )


def _tested(
    frame: pd.DataFrame, claim: Claim, expectation: Expectation, options: ReportOptions
) -> tuple[ClaimResult, Finding]:
    answered = ClaimResult(claim.says, claim.expect, None, UNTESTABLE, "", NOTHING, math.nan, math.nan, 0, math.nan)
    try:
        found, measured = cases(frame, expectation, _options(options, expectation.measure or claim.metric))
    except UntestableClaim as why:
        return answered, Finding(math.nan, UNTESTABLE, str(why))
    margin = _margin(claim, expectation, options)
    finding = _always(expectation, found, margin) if expectation.always else _mean(expectation, found, margin, measured)
    return replace(answered, metric=measured, difference=found.estimate, pairs=found.pairs), finding


def _options(options: ReportOptions, name: str | None) -> ReportOptions:
    return replace(options, metric=name or options.metric)


def _margin(claim: Claim, expectation: Expectation, options: ReportOptions) -> float:
    """The claim's own; for `=` without one, that of the report where it speaks of the same metric."""
    asked = expectation.measure or claim.metric
    same = asked is None or asked == options.metric
    return claim.margin or (options.margin or 0.0 if expectation.relation == "=" and same else 0.0)


def _mean(expectation: Expectation, found: Cases, margin: float, measured: Metric) -> Finding:
    if expectation.relation == "=":
        return _equal(found, margin, measured)
    if found.is_identical:
        return Finding(math.nan, REFUTED, _identical(found), certain=True)
    turned = found if expectation.relation == ">" else found.turned()
    shifted = turned.ranked - margin
    p = stats.sign_flip_p(shifted)
    is_better = np.nansum(shifted) > 0
    p = max(p, turned.p_after_choice(margin, better=bool(is_better)))
    over = f" by more than {numbers.margin(margin, measured).lstrip('±')}" if margin else ""
    effect = stats.cohen_dz(turned.finished - margin)
    return Finding(p, SUPPORTED if is_better else REFUTED, f"{_score(turned, margin)}{over}", effect=effect)


def _identical(found: Cases) -> str:
    return f"identical on all {numbers.count(found.pairs, 'seed')}"


def _score(found: Cases, margin: float) -> str:
    wins = int((found.ranked - margin > 0).sum())
    return f"as expected on {wins} of {numbers.count(found.pairs, 'seed')}"


def _equal(found: Cases, margin: float, measured: Metric) -> Finding:
    """Two tests that exclude one another: that the difference is within the margin, and that it is beyond."""
    if found.is_identical:
        return Finding(math.nan, SUPPORTED, _identical(found), certain=True)
    beyond = np.sign(found.direction) * found.ranked - margin
    differs = stats.sign_flip_p(beyond) if np.nansum(beyond) > 0 else 1.0
    within = 1.0 if found.decided_by_divergence or not margin else stats.equivalence_p(found.finished, margin)
    if not margin:
        reason = "not identical, and without a margin nothing else is equal"
        return Finding(differs, REFUTED, reason, effect=stats.cohen_dz(found.finished))
    reason = f"tested for being within {numbers.margin(margin, measured)}"
    tendency = SUPPORTED if within < differs else REFUTED
    # The mean must clear both ends of the margin by a one-sided test each; each may miss in half of the cases.
    clearance = _clearance(found.estimate, margin)
    return Finding(min(within, differs), tendency, reason, effect=clearance, level=2 * LEVEL, power=(1 + POWER) / 2)


def _clearance(difference: Estimate, margin: float) -> float:
    """How far the mean is from the end of the margin, in standard deviations; 0 where it is beyond."""
    deviation = stats.standard_error_of(difference) * math.sqrt(difference.n)
    return max(0.0, margin - abs(difference.mean)) / deviation if deviation else math.nan


def _always(expectation: Expectation, found: Cases, margin: float) -> Finding:
    """A universal statement: one counterexample refutes it, whatever the mean."""
    turned = found.turned() if expectation.relation == "<" else found
    held = turned.holds(expectation.relation, margin)
    total, count = held.size, int(held.sum())
    if count < total:
        reason = f"{total - count} of {numbers.count(total, 'case')} are counterexamples"
        return Finding(math.nan, REFUTED, reason, certain=True)
    reason = f"held in all {numbers.count(total, 'case')}"
    if expectation.relation == "=":
        return Finding(math.nan, SUPPORTED, reason, certain=True)
    return Finding(stats.sign_flip_p(turned.ranked - margin), SUPPORTED, reason)


def _judged(answered: ClaimResult, finding: Finding, p_holm: float, count: int) -> ClaimResult:
    if finding.certain or finding.tendency == UNTESTABLE:
        return replace(answered, verdict=finding.tendency, reason=finding.reason)
    shown = finding.tendency if p_holm < LEVEL else INCONCLUSIVE
    answered = replace(answered, verdict=shown, reason=finding.reason, p=finding.p, p_holm=p_holm)
    if shown != INCONCLUSIVE:
        return answered
    seeds = stats.seeds_for_power(finding.effect, count, finding.power, finding.level)
    return replace(answered, seeds_needed=seeds, reason=f"{finding.reason}; {_advice(seeds, answered.pairs)}")


def _advice(seeds: float, pairs: int) -> str:
    if math.isinf(seeds):
        return f"with what was seen, not even {stats.MOST_SEEDS} seeds would decide it"
    if seeds <= pairs:
        return "its mean would be enough, but divergence or the choice of a threshold leaves it open"
    return f"about {seeds:.0f} seeds would decide it (80 % power, if the difference stays as it is)"
