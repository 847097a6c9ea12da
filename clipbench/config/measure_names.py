"""Check the names of measures that report, sweep, claims and train.target use."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from clipbench.config.values import InvalidValue, show
from clipbench.core import measures
from clipbench.errors import did_you_mean
from clipbench.plugins.registry import catalogue

DECLARED = "Metrics of your own are declared in train.metrics; those of a script as `metrics: {NAME: maximize}`."


def check_measure(name: object, own: Sequence[str] = (), *, per_epoch: bool = False) -> None:
    """Raise InvalidValue unless `name` is a measure.

    `own` are the user's metrics; `per_epoch` asks for a measure that is taken after every epoch.
    """
    if not isinstance(name, str):
        raise InvalidValue(f"expected the name of a measure, got {show(name)}.", "Write for example test/accuracy.")
    metrics = (*catalogue("metric"), *own)
    known = measures.monitored(metrics) if per_epoch else measures.compared(metrics)
    if name not in known:
        part, _, metric = name.partition("/")
        own_metric = metric and part in measures.PARTS and f"{part}/loss" in known
        if not own_metric:
            raise InvalidValue(f"unknown measure {name!r}.", did_you_mean(name, known))
        near = get_close_matches(metric, ("loss", *metrics), 1)
        raise InvalidValue(
            f"unknown measure {name!r}.", f"Did you mean `{part}/{near[0]}`? {DECLARED}" if near else DECLARED
        )


def is_measure(name: object, own: Sequence[str] = (), *, per_epoch: bool = False) -> bool:
    try:
        check_measure(name, own, per_epoch=per_epoch)
    except InvalidValue:
        return False
    return True
