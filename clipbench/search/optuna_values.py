"""The values of a knob on their way to Optuna and back."""

from __future__ import annotations

from typing import Any

import optuna

from clipbench.core.trial import Value
from clipbench.planning.contender import Knob


def suggest(trial: optuna.trial.Trial, knob: Knob) -> Any:
    """What Optuna says for a knob; the same each time that it is asked about one trial."""
    if knob.choices:
        return trial.suggest_categorical(knob.path, [told(knob, choice) for choice in knob.choices])
    if knob.whole:
        return trial.suggest_int(knob.path, int(knob.low), int(knob.high), log=knob.log)
    return trial.suggest_float(knob.path, knob.low, knob.high, log=knob.log)


def told(knob: Knob, value: Value) -> Any:
    """A value as Optuna takes it: a list is a text there."""
    return value if not knob.choices or value is None or isinstance(value, bool | int | float | str) else repr(value)


def heard(knob: Knob, value: Any) -> Value:
    """The value that trials get: of a number the digits that a person would type."""
    if not knob.choices:
        return knob.rounded(value)
    return next(choice for choice in knob.choices if told(knob, choice) == value)
