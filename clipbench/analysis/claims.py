"""The claims of an experiment, tested on its trials: supported, refuted, inconclusive or untestable."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipbench import stats
from clipbench.analysis.claim_cases import Cases, UntestableClaim, cases
from clipbench.analysis.report_model import ClaimResult, ReportOptions
from clipbench.stats import LEVEL, Estimate

if TYPE_CHECKING:
    from clipbench.config.claim_language import Expectation
    from clipbench.config.sections import Claim

SUPPORTED, REFUTED, INCONCLUSIVE, UNTESTABLE = "supported", "refuted", "inconclusive", "untestable"
# What is tested: the mean difference; that all differences are 0; that the mean lies within the margin; every case.
DIFFERENCE, IDENTITY, EQUIVALENCE, ALWAYS = "difference", "identity", "equivalence", "always"
POWER = 0.8


@dataclass(frozen=True)
class Finding:
    """What the trials show about one claim, before the correction for the other claims."""

    test: str
    tendency: str  # the verdict if p is small
    p: float = math.nan
    held: int = 0  # of `cases`
    cases: int = 0
    effect: float = math.nan  # in standard deviations; determines how many seeds are needed
    level: float = LEVEL
    power: float = POWER
    is_certain: bool = False  # whatever p: a counterexample, or all differences are 0


def answer(frame: pd.DataFrame, options: ReportOptions) -> tuple[ClaimResult, ...]:
    """Test every claim; p is corrected by Holm for all claims that are tested."""
    tested = [_tested(frame, claim, expectation, options) for claim, expectation in options.claims]
    corrected = stats.holm([finding.p if finding else math.nan for _, finding in tested])
    count = max(1, int(np.isfinite(corrected).sum()))
    return tuple(
        _judged(result, finding, float(p), count) if finding else result
        for (result, finding), p in zip(tested, corrected, strict=True)
    )


def _tested(
    frame: pd.DataFrame, claim: Claim, expectation: Expectation, options: ReportOptions
) -> tuple[ClaimResult, Finding | None]:
    result = ClaimResult(claim.says, claim.expect, None, UNTESTABLE)
    asked = expectation.measure or claim.metric
    try:
        found, measured = cases(frame, expectation, replace(options, metric=asked or options.metric))
    except UntestableClaim as why:
        return replace(result, untestable=str(why)), None
    margin = _margin(claim, expectation, options)
    finding = _always(expectation, found, margin) if expectation.always else _mean(expectation, found, margin)
    result = replace(
        result, metric=measured, difference=stats.estimate(found.finished), pairs=found.ranked.size, margin=margin
    )
    return replace(result, test=finding.test, held=finding.held, cases=finding.cases), finding


def _margin(claim: Claim, expectation: Expectation, options: ReportOptions) -> float:
    """The claim's own; for `=` without one, that of the report if both are about the same metric."""
    asked = expectation.measure or claim.metric
    same = asked is None or asked == options.metric
    return claim.margin or (options.margin or 0.0 if expectation.relation == "=" and same else 0.0)


def _mean(expectation: Expectation, found: Cases, margin: float) -> Finding:
    if expectation.relation == "=":
        return _equal(found, margin)
    if found.is_identical:
        return Finding(IDENTITY, REFUTED, is_certain=True)
    turned = found if expectation.relation == ">" else found.turned()
    shifted = turned.ranked - margin
    is_better = bool(np.nansum(shifted) > 0)
    p = max(stats.sign_flip_p(shifted), turned.p_after_choice(margin, better=is_better))
    effect = stats.cohen_dz(turned.finished - margin)
    held = int((shifted > 0).sum())
    return Finding(DIFFERENCE, SUPPORTED if is_better else REFUTED, p, held, turned.ranked.size, effect)


def _equal(found: Cases, margin: float) -> Finding:
    """Two tests that exclude each other: that the difference is within the margin, and that it is beyond."""
    if found.is_identical:
        return Finding(IDENTITY, SUPPORTED, is_certain=True)
    beyond = np.sign(found.ranked.sum()) * found.ranked - margin
    differs = stats.sign_flip_p(beyond) if np.nansum(beyond) > 0 else 1.0
    if not margin:
        return Finding(EQUIVALENCE, REFUTED, differs, effect=stats.cohen_dz(found.finished))
    within = 1.0 if found.rows.decided_by_divergence else stats.equivalence_p(found.finished, margin)
    tendency = SUPPORTED if within < differs else REFUTED
    # The mean must clear both ends of the margin by a one-sided test each; each may miss in half of the cases.
    clearance, power = _clearance(stats.estimate(found.finished), margin), (1 + POWER) / 2
    return Finding(EQUIVALENCE, tendency, min(within, differs), effect=clearance, level=2 * LEVEL, power=power)


def _clearance(difference: Estimate, margin: float) -> float:
    """The distance of the mean from the end of the margin, in standard deviations; 0 if it is beyond."""
    deviation = stats.standard_error_of(difference) * math.sqrt(difference.n)
    return max(0.0, margin - abs(difference.mean)) / deviation if deviation else math.nan


def _always(expectation: Expectation, found: Cases, margin: float) -> Finding:
    """A universal statement: one counterexample refutes it, whatever the mean."""
    turned = found.turned() if expectation.relation == "<" else found
    held = turned.holds(expectation.relation, margin)
    holds, total = int(held.sum()), held.size
    is_certain = holds < total or expectation.relation == "="
    p = math.nan if is_certain else stats.sign_flip_p(turned.ranked - margin)
    return Finding(ALWAYS, REFUTED if holds < total else SUPPORTED, p, holds, total, is_certain=is_certain)


def _judged(result: ClaimResult, finding: Finding, p_holm: float, count: int) -> ClaimResult:
    if finding.is_certain:
        return replace(result, verdict=finding.tendency)
    result = replace(result, p=finding.p, p_holm=p_holm)
    if p_holm < LEVEL:
        return replace(result, verdict=finding.tendency)
    seeds = stats.seeds_for_power(finding.effect, count, finding.power, finding.level)
    return replace(result, verdict=INCONCLUSIVE, seeds_needed=seeds)
