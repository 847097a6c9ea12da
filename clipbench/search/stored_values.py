"""Values of hyperparameters as Optuna and `sweep.json` store them: a list is text."""

from __future__ import annotations

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from clipbench.core.trial import Value
from clipbench.planning.contender import Hyperparameter
from clipbench.store.json_document import Scalar


def distribution_of(param: Hyperparameter) -> BaseDistribution:
    """Return the values that a hyperparameter can have."""
    if param.choices:
        return CategoricalDistribution([to_stored(choice) for choice in param.choices])
    if param.whole:
        return IntDistribution(int(param.low), int(param.high), log=param.log)
    return FloatDistribution(param.low, param.high, log=param.log)


def to_stored(value: Value) -> Scalar:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def from_stored(param: Hyperparameter, stored: Scalar) -> Value:
    """Return the value that trials use, or None if it is none of the choices. Numbers have few digits."""
    if not param.choices:
        return param.rounded(stored)
    return next((choice for choice in param.choices if to_stored(choice) == stored), None)
