"""Durations and sizes as the YAML writes them: `10m`, `2h`, `4GB`."""

from __future__ import annotations

import math
import re
from typing import Any

from clipbench.config.values import InvalidValue, show

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}


def duration(value: Any) -> float:
    """Return a duration in seconds, given as a number of them or as text such as `10m`."""
    found = _read(value, _SECONDS)
    if found is None:
        raise InvalidValue(f"expected a duration greater than 0, got {show(value)}.", "Write seconds, or 30s, 10m, 2h.")
    return found


def seconds(value: Any) -> float | None:
    """Return a duration in seconds, or None where there is none."""
    return None if value is None else duration(value)


def size(value: Any) -> int | None:
    """Return a size in bytes, given as a number of them or as text such as `4GB`."""
    found = _read(value, _BYTES)
    if found is None and value is not None:
        raise InvalidValue(f"expected a size greater than 0, got {show(value)}.", "Write for example 800MB or 4GB.")
    return None if found is None else int(found)


def _read(value: Any, units: dict[str, int]) -> float | None:
    """Return a number greater than 0, with or without a unit; None for anything else."""
    pattern = rf"(\d+(?:\.\d+)?)\s*({'|'.join(units)})"
    found = re.fullmatch(pattern, value) if isinstance(value, str) else None
    number = float(found[1]) * units[found[2]] if found else value
    if isinstance(number, bool | str) or not isinstance(number, int | float) or not 0 < number < math.inf:
        return None
    return float(number)
