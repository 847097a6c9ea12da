"""The tone of a verdict, from which each format takes its colour and its sign; both only repeat the word."""

from clipbench.analysis import claims, search_result, verdicts

HELPS = "clipping helps"
TOO_FEW = "too few seeds to tell"
GOOD, BAD, OPEN, BASE = "good", "bad", "open", "base"
TONES = (
    dict.fromkeys(
        (
            HELPS,
            claims.SUPPORTED,
            search_result.CONFIRMED,
            verdicts.BEST,
            verdicts.FIRST,
            verdicts.TIED,
            verdicts.BETTER,
        ),
        GOOD,
    )
    | dict.fromkeys((claims.REFUTED, verdicts.WORSE), BAD)
    | dict.fromkeys((TOO_FEW, claims.INCONCLUSIVE, search_result.OPTIMISTIC, verdicts.UNDERPOWERED), OPEN)
    | {verdicts.BASELINE: BASE}
)
