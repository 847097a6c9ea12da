"""Values of hyperparameters as Optuna stores them."""

from __future__ import annotations

from typing import Any

import optuna

from clipbench.core.trial import Value
from clipbench.planning.contender import Hyperparameter


def suggest(trial: optuna.trial.Trial, param: Hyperparameter) -> Any:
    """Return the value that Optuna suggests for a hyperparameter, always the same for one trial."""
    if param.choices:
        return trial.suggest_categorical(param.path, [to_optuna(param, choice) for choice in param.choices])
    if param.whole:
        return trial.suggest_int(param.path, int(param.low), int(param.high), log=param.log)
    return trial.suggest_float(param.path, param.low, param.high, log=param.log)


def to_optuna(param: Hyperparameter, value: Value) -> Any:
    """Return a value as Optuna stores it: a list as text."""
    return value if not param.choices or value is None or isinstance(value, bool | int | float | str) else repr(value)


def from_optuna(param: Hyperparameter, value: Any) -> Value:
    """Return the value that trials use: numbers have few digits."""
    if not param.choices:
        return param.rounded(value)
    return next(choice for choice in param.choices if to_optuna(param, choice) == value)
