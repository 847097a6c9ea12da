"""The claims of an experiment, tested on its trials: supported, refuted, inconclusive or untestable."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipbench import stats
from clipbench.analysis.claim_cases import UntestableClaim, comparison
from clipbench.analysis.comparison import Comparison
from clipbench.analysis.report_model import ClaimResult, ReportOptions
from clipbench.stats import LEVEL

if TYPE_CHECKING:
    from clipbench.config.claim_language import Expectation
    from clipbench.config.sections import Claim

SUPPORTED, REFUTED, INCONCLUSIVE, UNTESTABLE = "supported", "refuted", "inconclusive", "untestable"
# What is tested: the mean difference; the same training; that the mean lies within the margin; every case.
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
    effects: tuple[float, float] = (math.nan, math.nan)  # determine how many seeds are needed, as in `Comparison`
    cost_of_choice: float = 1.0
    level: float = LEVEL
    power: float = POWER
    is_certain: bool = False  # whatever p: a counterexample, or both sides are the same training


def answer(frame: pd.DataFrame, options: ReportOptions) -> tuple[ClaimResult, ...]:
    """Test every claim; p is corrected by Holm for all claims of its family that are tested."""
    tested = [_tested(frame, claim, expectation, options) for claim, expectation in options.claims]
    p = np.array([finding.p if finding else math.nan for _, finding in tested])
    families = np.array([result.family for result, _ in tested])
    p_holm, sizes = np.full(len(p), math.nan), np.ones(len(p), int)
    for family in set(families):
        members = families == family
        p_holm[members] = stats.holm(p[members])
        sizes[members] = max(1, int(np.isfinite(p[members]).sum()))
    return tuple(
        _judged(replace(result, family_size=int(size)), finding, float(corrected)) if finding else result
        for (result, finding), corrected, size in zip(tested, p_holm, sizes, strict=True)
    )


def _tested(
    frame: pd.DataFrame, claim: Claim, expectation: Expectation, options: ReportOptions
) -> tuple[ClaimResult, Finding | None]:
    result = ClaimResult(claim.says, claim.expect, None, UNTESTABLE, family=claim.family)
    asked = expectation.measure or claim.metric
    try:
        found, measured = comparison(frame, expectation, replace(options, metric=asked or options.metric))
    except UntestableClaim as why:
        return replace(result, untestable=str(why)), None
    margin = _margin(claim, expectation, options)
    finding = finding_of(found, expectation, margin)
    rows = found.rows
    result = replace(
        result,
        metric=measured,
        difference=stats.estimate(found.finished),
        pairs=found.ranked.size,
        margin=margin,
        same_training=found.is_same_training,
        by_divergence=int((rows.won | rows.lost | rows.both_diverged).any(axis=0).sum()),
        test=finding.test,
        held=finding.held,
        cases=finding.cases,
    )
    return result, finding


def finding_of(found: Comparison, expectation: Expectation, margin: float) -> Finding:
    """What a comparison shows about an expectation."""
    return _always(expectation, found, margin) if expectation.always else _mean(expectation, found, margin)


def _margin(claim: Claim, expectation: Expectation, options: ReportOptions) -> float:
    """The claim's own; for `=` without one, that of the report if both are about the same metric."""
    asked = expectation.measure or claim.metric
    same = asked is None or asked == options.metric
    inherited = options.margin if expectation.relation == "=" and same else 0.0
    return (inherited if claim.margin is None else claim.margin) or 0.0


def _mean(expectation: Expectation, found: Comparison, margin: float) -> Finding:
    if found.is_identical:
        return Finding(IDENTITY, SUPPORTED if expectation.relation == "=" else REFUTED, is_certain=True)
    if expectation.relation == "=":
        return _equal(found, margin)
    turned = found if expectation.relation == ">" else found.turned()
    beyond, p = turned.ranked - margin, turned.p_better(margin)
    return Finding(
        DIFFERENCE,
        SUPPORTED if beyond.sum() > 0 else REFUTED,
        p,
        held=int((beyond > 0).sum()),
        cases=beyond.size,
        effects=turned.effects(margin),
        cost_of_choice=turned.cost_of_choice(p, margin),
    )


def _equal(found: Comparison, margin: float) -> Finding:
    """Two tests that exclude each other: that the difference is within the margin, and that it is beyond."""
    larger = found if found.direction > 0 else found.turned()
    differs = larger.p_better(margin) if larger.direction > margin * larger.ranked.size else 1.0
    if not margin:
        cost = found.cost_of_choice(differs)
        return Finding(EQUIVALENCE, REFUTED, differs, effects=found.effects(), cost_of_choice=cost)
    if abs(stats.estimate(found.finished).mean) > margin:  # more seeds may refute it, not support it
        cost, effects = larger.cost_of_choice(differs, margin), larger.effects(margin)
        return Finding(EQUIVALENCE, REFUTED, differs, effects=effects, cost_of_choice=cost)
    within = found.p_equal(margin)
    return Finding(
        EQUIVALENCE,
        SUPPORTED if within < differs else REFUTED,
        min(within, differs),
        effects=_clearances(found, margin),
        # The mean must clear both ends of the margin by a one-sided test each; each may miss in half of the cases.
        level=2 * LEVEL,
        power=(1 + POWER) / 2,
    )


def _clearances(found: Comparison, margin: float) -> tuple[float, float]:
    """The distance of the mean from the end of the margin, in standard deviations; 0 if divergence decides.

    The second is that of the end of its interval that is farther from zero. The deviation is at least that of the
    number of steps of size `grain` at the end of the margin.
    """
    if found.rows.decided_by_divergence:
        return 0.0, 0.0
    difference = stats.estimate(found.finished)
    deviation = max(stats.standard_error_of(difference) * math.sqrt(difference.n), math.sqrt(margin * found.grain))
    if not deviation:
        return math.nan, math.nan
    ends = abs(difference.mean), max(-difference.low, difference.high)
    nearest, farthest = (max(0.0, margin - end) / deviation for end in ends)
    return nearest, farthest


def _always(expectation: Expectation, found: Comparison, margin: float) -> Finding:
    """A universal statement: one counterexample refutes it, whatever the mean."""
    turned = found.turned() if expectation.relation == "<" else found
    every = turned.rows.ranked[np.isfinite(turned.rows.ranked)]
    held = abs(every) <= margin if expectation.relation == "=" else every > margin
    holds, total = int(held.sum()), held.size
    if holds < total or found.is_identical:
        return Finding(ALWAYS, REFUTED if holds < total else SUPPORTED, held=holds, cases=total, is_certain=True)
    mean = _mean(expectation, found, margin)
    return replace(mean, test=ALWAYS, held=holds, cases=total)


def _judged(result: ClaimResult, finding: Finding, p_holm: float) -> ClaimResult:
    if finding.is_certain:
        return replace(result, verdict=finding.tendency)
    result = replace(result, p=finding.p, p_holm=p_holm)
    if p_holm < LEVEL:
        return replace(result, verdict=finding.tendency)
    least = stats.more_seeds(result.pairs, p_holm)
    seeds, seeds_low = (
        max(least, stats.seeds_for_power(dz, result.family_size, finding.cost_of_choice, finding.power, finding.level))
        for dz in finding.effects
    )
    return replace(result, verdict=INCONCLUSIVE, seeds_needed=seeds, seeds_needed_low=seeds_low)
