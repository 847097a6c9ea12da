"""The values of a hyperparameter on their way to Optuna and back."""

from __future__ import annotations

from typing import Any

import optuna

from clipbench.core.trial import Value
from clipbench.planning.contender import Hyperparameter


def suggest(trial: optuna.trial.Trial, param: Hyperparameter) -> Any:
    """What Optuna says for a hyperparameter; the same each time that it is asked about one trial."""
    if param.choices:
        return trial.suggest_categorical(param.path, [told(param, choice) for choice in param.choices])
    if param.whole:
        return trial.suggest_int(param.path, int(param.low), int(param.high), log=param.log)
    return trial.suggest_float(param.path, param.low, param.high, log=param.log)


def told(param: Hyperparameter, value: Value) -> Any:
    """A value as Optuna takes it: a list is a text there."""
    return value if not param.choices or value is None or isinstance(value, bool | int | float | str) else repr(value)


def heard(param: Hyperparameter, value: Any) -> Value:
    """The value that trials get: of a number the digits that a person would type."""
    if not param.choices:
        return param.rounded(value)
    return next(choice for choice in param.choices if told(param, choice) == value)
