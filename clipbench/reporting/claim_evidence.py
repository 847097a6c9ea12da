"""What the trials say about a claim, in one sentence, the same for every format."""

from __future__ import annotations

import math

from clipbench.analysis.report_model import ClaimResult
from clipbench.reporting import numbers

TITLE = "Claims"
MEANING = (
    "supported, refuted: p < 0.05 after Holm over the claims of the experiment, in the expected direction or against "
    "it; one counterexample refutes `always`. > is better than, whatever the metric. Differences are left minus right "
    "by seed, turned so that positive is better."
)


def sentence(answered: ClaimResult) -> str:
    """`test/accuracy +28 pp [+13, +42], p = 0.039 (8 seeds); as expected on 8 of 8 seeds`."""
    if answered.metric is None:
        return answered.reason
    parts = [answered.metric.name]
    if answered.difference.n:
        parts[0] += f" {numbers.interval(answered.difference, answered.metric)}"
    if not math.isnan(answered.p_holm):
        parts.append(numbers.p_clause(answered.p_holm))
    return f"{', '.join(parts)} ({numbers.count(answered.pairs, 'seed')}); {answered.reason}"
