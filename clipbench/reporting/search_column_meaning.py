"""What the columns of the search's tables mean, for whoever points at them, and for the end of a text."""

from __future__ import annotations

from collections.abc import Iterator

from clipbench.analysis.report_model import Metric, SearchResult
from clipbench.reporting import numbers
from clipbench.store.sweep_file import SweepDocument

CONTENDER = "A clipping strategy whose options were searched; one that has none to search is trained as it is."
FOUND = "The values of the searched options at the best point."
OPTIMISM = (
    "Searched minus fresh, turned so that positive means that the search promised too much, with half of the interval "
    "of the fresh seeds. The best of many noisy scores is partly luck, so a little optimism is to be expected."
)
PROMISE = (
    "held: the searched score lies within the 95 % interval of the fresh seeds. too good: fresh seeds are worse than "
    "the search promised. too modest: they are better."
)
POINTS = "Points that were tried: values of all searched options, each trained on every search seed."
COMPLETE = "Points that were trained to their last epoch."
PRUNED = "Points that were stopped early, since others did better by then."
DIVERGED = "Points of which a trial or more diverged."
FAILED = "Points whose training ended with an error."
BUDGET = "Share of all epochs that the search trained; a pruned point counts with the epochs that it got."
IMPORTANCE = (
    "Share of the differences between points that the option explains, as Optuna estimates it; of a few points it is "
    "a rough guess."
)
NUMBER = "In the order in which the contender's points were tried; * marks the one that was confirmed."
BEATEN = "The first contender that has a point which is no worse in any objective and better in one."
HEADLINE = (
    "The score of the best of many points flatters it: it was chosen because it looked good on these seeds. Seeds that "
    "the search never saw show what it is worth."
)


def searched(swept: SweepDocument, measure: Metric) -> str:
    better = "higher" if measure.higher_is_better else "lower"
    seeds = numbers.count(len(swept.search_seeds), "search seed")
    return f"Mean {measure.name} over {seeds} at the best point, by which it was chosen; {better} is better."


def fresh(swept: SweepDocument, measure: Metric) -> str:
    seeds = numbers.count(len(swept.confirm_seeds), "seed")
    return f"Mean {measure.name} over {seeds} that the search never saw ± half of its 95 % t interval."


def score(measure: Metric) -> str:
    better = "higher" if measure.higher_is_better else "lower"
    return f"Mean {measure.name} over the search seeds; {better} is better."


def param(path: str) -> str:
    return f"The value of {path} at the best point."


def lines(search: SearchResult | None) -> Iterator[str]:
    """The same at the end of a text, as far as its tables need it."""
    if search is None or not search.swept.searched:
        return
    seeds = numbers.seeds(search.swept.search_seeds)
    yield (
        f"searched: mean over the search seeds ({seeds}) at the best point, by which it was chosen. fresh: the same "
        "measure on seeds that the search never saw ± half of its 95 % t interval."
    )
    yield (
        "optimism: searched - fresh, positive where the search promised too much. held: searched lies within the "
        "interval of the fresh seeds; too good, too modest: above it or below, as the measure counts."
    )
    yield "budget: share of all epochs that the search trained. diverged: points of which a trial or more diverged."
    if any(len(row.contender.importances) > 1 for row in search.found):
        yield "What mattered: share of the differences between points that each option explains (Optuna's estimate)."
    if len(search.measures) > 1:
        yield (
            "Pareto table: points that no other point of their contender beats in every objective; * is the one that "
            "was confirmed."
        )
