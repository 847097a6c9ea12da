"""Check the names of measures that report, sweep, claims and train.target use."""

from __future__ import annotations

from clipbench.config.values import show
from clipbench.core import measures
from clipbench.errors import did_you_mean
from clipbench.plugins.registry import catalogue


def unknown_measure(name: object, own: tuple[str, ...] = (), *, per_epoch: bool = False) -> tuple[str, str]:
    """What is wrong with the name of a measure, and the remedy; two empty texts if it is known.

    `own` are the user's metrics; `per_epoch` asks for a measure that is taken after every epoch.
    """
    if not isinstance(name, str):
        return f"expected the name of a measure, got {show(name)}.", "Write for example test/accuracy."
    metrics = (*catalogue("metric"), *own)
    known = measures.monitored(metrics) if per_epoch else measures.compared(metrics)
    return ("", "") if name in known else (f"unknown measure {name!r}.", did_you_mean(name, known))
