"""Parametrizations of which the tests of every day take a part; `make test-slow` takes the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def one_of(count: int, cases: Iterable[Any], always: Collection[str] = ()) -> list[Any]:
    """Return the values of one parameter, of which one of so many, and those of these names, are not slow."""
    return [
        pytest.param(case, marks=() if number % count == 0 or case in always else pytest.mark.slow)
        for number, case in enumerate(cases)
    ]
