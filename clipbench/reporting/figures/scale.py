"""From values to places on a sheet, and the round values that an axis shows."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

MOST_TICKS = 5
MOST = 1e250
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Scale:
    """Values between `low` and `high` stand between `start` and `end`, in pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    marks: tuple[float, ...] = ()  # what the axis shows, instead of round values
    names: tuple[str, ...] = ()  # of what stands at 0, 1, 2, where the values are no numbers

    def __call__(self, value: float) -> float:
        """The place of a value; what lies outside stands at the edge."""
        low, high = self._ends
        share = min(1.0, max(0.0, (self._position(value) - low) / (high - low)))
        return self.start + share * (self.end - self.start)

    @functools.cached_property
    def _ends(self) -> tuple[float, float]:
        return self._position(self.low), self._position(self.high)

    def _position(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Round values within the scale, or the given ones, with their labels."""
        if self.names:
            return [(float(place), name) for place, name in enumerate(self.names)]
        if self.marks:
            return [(value, label(float(f"{value:.3g}"))) for value in self.marks]
        values = _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)
        return [(value, label(value)) for value in values]


def scale(values: Iterable[float], start: float, end: float, *, log: bool = False, pad: float = 0.06) -> Scale:
    """A scale that holds all finite values, with a little room at its ends."""
    known = [_within_reach(value, log) for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(known), max(known)) if known else (1.0, 10.0) if log else (0.0, 1.0)
    if log:
        room = max(0.04, pad * (math.log10(high) - math.log10(low))) if high > low else 0.5
        return Scale(low / 10**room, high * 10**room, start, end, log=True)
    room = pad * (high - low) or abs(low) * 0.1 or 1.0
    return Scale(low - room, high + room, start, end)


def _within_reach(value: float, log: bool) -> float:
    """What diverges may be as large as a number can be, and then there is no room beyond it."""
    return min(max(value, 1 / MOST if log else -MOST), MOST)


def spans_decades(values: Iterable[float], ratio: float = 30.0) -> bool:
    """Whether a log axis is needed to tell the small values apart."""
    known = [value for value in values if math.isfinite(value)]
    return bool(known) and min(known) > 0 and max(known) / min(known) > ratio


def label(value: float) -> str:
    """`0.001`, `10⁻⁵`, `2·10⁶`."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}"
    mantissa, _, exponent = f"{value:.3g}".partition("e") if "e" in f"{value:.3g}" else f"{value:.2e}".partition("e")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    digits = f"{float(mantissa):g}"
    return power if digits == "1" else f"{digits}·{power}"


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / (MOST_TICKS - 1)
    magnitude = 10 ** math.floor(math.log10(rough))
    larger = [factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999]
    finer = [factor * magnitude for factor in (5, 2, 1, 0.5, 0.2) if factor * magnitude < larger[0]]
    for step in (larger[0], *finer):  # one tick would say nothing of the distance to the others
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last > first:
            break
    return [n * step for n in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = -(-(last - first + 1) // MOST_TICKS) or 1
    decades = [10.0**power for power in range(first, last + 1) if power % stride == 0]
    if len(decades) > 1:
        return decades
    finer = [factor * 10.0**power for power in range(first - 1, last + 1) for factor in (1, 2, 5)]
    inside = [value for value in finer if low <= value <= high]
    return inside if len(inside) > 1 else _linear_ticks(low, high)
