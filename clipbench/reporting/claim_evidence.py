"""What the trials show about a claim, in one sentence, the same for every format."""

from __future__ import annotations

import math

from clipbench.analysis import claims
from clipbench.analysis.report_model import ClaimResult
from clipbench.reporting import numbers
from clipbench.stats import LEVEL, MOST_SEEDS

TITLE = "Claims"
MEANING = (
    "supported, refuted: p < 0.05 in the expected direction or against it, after Holm's correction for all claims of "
    "the experiment or of the same `family`; one counterexample refutes `always`. > means better than, whatever the "
    "metric. Differences are left minus right by seed, with the sign chosen so that positive is better."
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
    family = f", {_family(result)}" if result.family and not math.isnan(result.p_holm) else ""
    seeds = numbers.count(result.pairs, "seed")
    diverged = f", {result.by_divergence} of them with divergence" if result.by_divergence else ""
    return f"{', '.join(parts)} ({seeds}{diverged}{family}); {reason(result)}"


def _family(result: ClaimResult) -> str:
    return f"{numbers.count(result.family_size, 'claim')} of the family {result.family!r}"


def reason(result: ClaimResult) -> str:
    """Why the claim has its verdict; for an inconclusive one, what would decide it."""
    is_open = result.verdict == claims.INCONCLUSIVE and not result.same_training
    advice = f"; {_advice(result)}" if is_open else ""
    return f"{_outcome(result)}{advice}"


def _outcome(result: ClaimResult) -> str:
    if result.metric is None:
        return result.untestable
    margin = numbers.margin(result.margin, result.metric)
    if result.test == claims.IDENTITY:
        neither = "" if result.verdict == claims.SUPPORTED else ", so neither is better"
        return f"identical on all {numbers.count(result.pairs, 'seed')}{neither}"
    if result.same_training and result.verdict == claims.INCONCLUSIVE:
        seeds = numbers.count(result.pairs, "seed")
        return f"the same training on all {seeds} at the chosen threshold, but not at the others"
    if result.test == claims.EQUIVALENCE and not result.margin:
        return "not the same weights; without a margin, only identical training is equal"
    if result.test == claims.EQUIVALENCE:
        return f"{'not ' if result.verdict == claims.REFUTED else 'tested for being '}within {margin}"
    if result.test == claims.DIFFERENCE:
        over = f" by more than {margin.lstrip('±')}" if result.margin else ""
        if over and result.verdict == claims.REFUTED:
            word = "better" if ">" in result.expect else "worse"
            return f"not {word}{over}: so on {result.cases - result.held} of {numbers.count(result.cases, 'seed')}"
        return f"as expected on {result.held} of {numbers.count(result.cases, 'seed')}{over}"
    if result.held < result.cases:
        return f"{result.cases - result.held} of {numbers.count(result.cases, 'case')} are counterexamples"
    return f"true in all {numbers.count(result.cases, 'case')}"


def _advice(result: ClaimResult) -> str:
    if result.p < LEVEL:
        return (
            f"significant alone ({numbers.p_clause(result.p)}), but not after correction for "
            f"{numbers.count(result.family_size, 'claim')}; `family` separates unrelated claims. {_seeds(result)}"
        )
    return _seeds(result)


def _seeds(result: ClaimResult) -> str:
    if math.isinf(result.seeds_needed):
        return f"at the observed difference, even {MOST_SEEDS:,} seeds would not decide it"
    low = f", {numbers.seeds_needed(result.seeds_needed_low)} at the unfavourable end of its interval"
    return (
        f"about {numbers.seeds_needed(result.seeds_needed)} seeds would decide it with 80 % power at the observed "
        f"difference{low if result.seeds_needed_low > result.seeds_needed else ''}"
    )
