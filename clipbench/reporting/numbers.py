"""Formatting of numbers: as many digits as the interval supports, p-values, units."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clipbench.analysis.report_model import ArmResult, Metric, TargetEpochs
from clipbench.stats import MOST_SEEDS, Estimate

NOTHING = "-"
MOST_DECIMALS = 6
MOST_NAMED = 5


def estimate(value: Estimate, metric: Metric, *, signed: bool = False) -> str:
    """`97.4 ± 0.3`: the mean and half the width of its 95 % interval."""
    if math.isnan(value.mean):
        return NOTHING
    mean, half = value.mean * scale(metric), value.half_width * scale(metric)
    if _is_extreme(_size(mean, half)):
        text = f"{mean:+.3g}" if signed else f"{mean:.3g}"
        return text if math.isnan(half) else f"{text} ± {half:.2g}"
    decimals = _decimals(half, mean)
    text = _rounded(mean, decimals, "+" if signed else "")
    return text if math.isnan(half) else f"{text} ± {half:.{decimals}f}"


def mean(value: float, metric: Metric) -> str:
    """A mean without an interval, in four significant digits."""
    return estimate(Estimate(value, math.nan, math.nan, 1), metric)


def interval(value: Estimate, metric: Metric) -> str:
    """`+0.3 pp [-0.2, +0.8]`: a difference with the ends of its interval."""
    unit = " pp" if metric.is_share else ""
    if math.isnan(value.half_width):
        return f"{number(value.mean * scale(metric), signed=True)}{unit}"
    decimals = _decimals(value.half_width * scale(metric), value.mean * scale(metric))
    if _is_extreme(_size(value.mean, value.half_width) * scale(metric)):
        mean, low, high = (f"{x * scale(metric):+.3g}" for x in (value.mean, value.low, value.high))
    else:
        ends = [x * scale(metric) for x in (value.mean, value.low, value.high)]
        # An end that is not 0 is not shown as 0: whether the interval contains 0 must be seen.
        while decimals < MOST_DECIMALS and any(end and not round(end, decimals) for end in ends[1:]):
            decimals += 1
        mean, low, high = (_rounded(end, decimals, "+") for end in ends)
    return f"{mean}{unit} [{low}, {high}]"


def unit(metric: Metric) -> str:
    return f"{metric.name} %" if metric.is_share else metric.name


def difference_unit(metric: Metric) -> str:
    return " (pp)" if metric.is_share else ""


def margin(value: float, metric: Metric) -> str:
    return f"±{value * scale(metric):g}{' pp' if metric.is_share else ''}"


def number(value: float, *, signed: bool = False) -> str:
    """Three significant digits, without an exponent for numbers of ordinary size."""
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    sign = "+" if signed else ""
    if value == 0 or _is_extreme(value):
        return f"{value:{sign}.3g}"
    decimals = max(0, min(MOST_DECIMALS, 2 - _exponent(value, 2)))
    return _rounded(value, decimals, sign)


def _rounded(value: float, decimals: int, sign: str) -> str:
    """Zero is never negative: `+0.00`, not `-0.00`."""
    return f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"


def p_value(p: float) -> str:
    if math.isnan(p):
        return NOTHING
    if p < 0.001:
        return "<0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_clause(p: float) -> str:
    """`p = 0.03`, `p < 0.001`."""
    text = p_value(p)
    return f"p {text[0]} {text[1:]}" if text.startswith("<") else f"p = {text}"


def seeds_needed(number: float) -> str:
    """A number of seeds, or that no number would do."""
    return f"{number:.0f}" if math.isfinite(number) else f"more than {MOST_SEEDS:,}"


def share(value: float) -> str:
    """Per cent; `0 %` and `100 %` only if exact."""
    if math.isnan(value):
        return NOTHING
    percent = 100 * value
    if 0 < percent < 0.1:
        return "<0.1 %"
    if 99.9 < percent < 100:
        return ">99.9 %"
    return f"{percent:.1f} %" if 0 < percent < 100 else f"{percent:.0f} %"


def effect(value: float) -> str:
    if math.isnan(value):
        return NOTHING
    return ("+∞" if value > 0 else "-∞") if math.isinf(value) else _rounded(value, 2, "+")


def diverged(row: ArmResult) -> str:
    return f"{row.diverged} of {row.trials}"


def reach(value: TargetEpochs | None) -> str:
    """`7`, `7 (2 never)` or `never (8/8)`: the median, and how many never reached the target."""
    if value is None or not value.trials:
        return NOTHING
    missed = value.trials - value.reached
    if math.isinf(value.median):
        return f"never ({missed}/{value.trials})"
    return f"{value.median:g} ({missed} never)" if missed else f"{value.median:g}"


def count(n: int, noun: str) -> str:
    """`1 seed`, `8 seeds`, `2 strategies`."""
    if n == 1:
        return f"1 {noun}"
    return f"{n} {noun[:-1]}ies" if noun.endswith("y") else f"{n} {noun}s"


def listing(names: Sequence[str]) -> str:
    """All names of a short list; of a long one the first five and how many more."""
    rest = len(names) - MOST_NAMED
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:MOST_NAMED])} and {rest} more"


def seeds(numbers: Sequence[int]) -> str:
    """`0 to 7`, `3, 5`, `4`."""
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"{numbers[0]} to {numbers[-1]}"
    return listing([str(number) for number in numbers])


def scale(metric: Metric) -> int:
    """The factor by which a value of the metric is multiplied for display."""
    return 100 if metric.is_share else 1


def _is_extreme(value: float) -> bool:
    return value != 0 and not 1e-4 <= abs(value) < 1e6


def _size(mean: float, half_width: float) -> float:
    """The size that determines the format: of a mean near zero, that of its interval."""
    return mean if math.isnan(half_width) else max(abs(mean), half_width)


def _decimals(half_width: float, mean: float) -> int:
    """Decimals for two significant digits of the half width; without one, for four of the mean."""
    if half_width > 0 and not math.isnan(half_width):
        wanted = 1 - _exponent(half_width, 1)
    else:
        wanted = 3 - _exponent(mean, 3) if mean else 1
    return max(0, min(MOST_DECIMALS, wanted))


def _exponent(value: float, decimals: int) -> int:
    """The exponent of ten after rounding: that of 9.99 is 1 with one decimal."""
    return int(f"{value:.{decimals}e}".partition("e")[2])
