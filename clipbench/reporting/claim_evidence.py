"""What the trials show about a claim, in one sentence, the same for every format."""

from __future__ import annotations

import math

from clipbench.analysis import claims
from clipbench.analysis.report_model import ClaimResult
from clipbench.reporting import numbers
from clipbench.stats import MOST_SEEDS

TITLE = "Claims"
MEANING = (
    "supported, refuted: p < 0.05 after Holm's correction for the claims of the experiment, in the expected direction "
    "or against it; one counterexample refutes `always`. > means better than, whatever the metric. Differences are "
    "left minus right by seed, with the sign chosen so that positive is better."
)


def sentence(result: ClaimResult) -> str:
    """`test/accuracy +28 pp [+13, +42], p = 0.039 (8 seeds); as expected on 8 of 8 seeds`."""
    if result.metric is None:
        return reason(result)
    parts = [result.metric.name]
    if result.difference.n:
        parts[0] += f" {numbers.interval(result.difference, result.metric)}"
    if not math.isnan(result.p_holm):
        parts.append(numbers.p_clause(result.p_holm))
    return f"{', '.join(parts)} ({numbers.count(result.pairs, 'seed')}); {reason(result)}"


def reason(result: ClaimResult) -> str:
    """Why the claim has its verdict; for an inconclusive one, what would decide it."""
    advice = f"; {_advice(result.seeds_needed, result.pairs)}" if result.verdict == claims.INCONCLUSIVE else ""
    return f"{_outcome(result)}{advice}"


def _outcome(result: ClaimResult) -> str:
    if result.metric is None:
        return result.untestable
    margin = numbers.margin(result.margin, result.metric)
    if result.test == claims.IDENTITY:
        neither = "" if result.verdict == claims.SUPPORTED else ", so neither is better"
        return f"identical on all {numbers.count(result.pairs, 'seed')}{neither}"
    if result.test == claims.EQUIVALENCE and not result.margin:
        return "not the same weights; without a margin, only identical training is equal"
    if result.test == claims.EQUIVALENCE:
        return f"tested for being within {margin}"
    if result.test == claims.DIFFERENCE:
        over = f" by more than {margin.lstrip('±')}" if result.margin else ""
        return f"as expected on {result.held} of {numbers.count(result.cases, 'seed')}{over}"
    if result.held < result.cases:
        return f"{result.cases - result.held} of {numbers.count(result.cases, 'case')} are counterexamples"
    return f"true in all {numbers.count(result.cases, 'case')}"


def _advice(seeds: float, pairs: int) -> str:
    if math.isinf(seeds):
        return f"at the observed difference, even {MOST_SEEDS} seeds would not decide it"
    if seeds <= pairs:
        return (
            "significant for the mean difference alone, but not with diverged trials, ties and threshold selection "
            "included"
        )
    return f"about {seeds:.0f} seeds would decide it (80 % power, if the difference stays the same)"
