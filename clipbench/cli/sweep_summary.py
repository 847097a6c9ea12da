"""What the YAML's `sweep` amounts to, in a few lines or as plain values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from clipbench.config.experiment import Experiment
from clipbench.config.values import show
from clipbench.core.trial import Trial, Value
from clipbench.errors import InputError
from clipbench.planning.contender import Contender, Hyperparameter
from clipbench.planning.find_contenders import contenders_of


def sweep_lines(experiment: Experiment) -> Iterator[str]:
    """The sweep for a terminal; nothing where the YAML has none."""
    sweep = experiment.sweep
    if not sweep:
        return
    try:
        found = _contenders(experiment)
    except InputError as error:  # `run` takes the file all the same
        yield from (f"  note       sweep: {each.place.key}: {each.text} {each.remedy}" for each in error.problems)
        return
    seeds = "1 seed" if sweep.seeds == 1 else f"{sweep.seeds} seeds"
    confirmed = f"the best on {sweep.confirm_seeds} others"
    yield f"  sweep      {sweep.trials} points of each on {seeds} by {sweep.sampler}, {confirmed}"
    searched = [contender for contender in found if contender.hyperparameters]
    yield from dict.fromkeys(
        f"  search     {each.name}: {', '.join(map(hyperparameter_words, each.hyperparameters))}" for each in searched
    )
    for left_out in dict.fromkeys(contender.left_out for contender in searched if contender.left_out):
        yield f"  note       {', '.join(left_out)}: outside of what is searched, and left out of a sweep."


def sweep_values(experiment: Experiment) -> dict[str, Any] | None:
    """The sweep for a program."""
    sweep = experiment.sweep
    if not sweep:
        return None
    try:
        found = _contenders(experiment)
    except InputError as error:
        return {"ok": False, "notes": [f"{each.place.key}: {each.text} {each.remedy}" for each in error.problems]}
    return {
        "ok": True,
        "trials": sweep.trials,
        "seeds": sweep.seeds,
        "confirm_seeds": sweep.confirm_seeds,
        "sampler": sweep.sampler,
        "searched": [
            {"contender": contender.label, **_hyperparameter_values(param)}
            for contender in found
            for param in contender.hyperparameters
        ],
        "left_out": [arm for contender in found for arm in contender.left_out],
    }


def hyperparameter_words(param: Hyperparameter) -> str:
    """What is searched of an option: `lr 0.01 to 1 (log)`."""
    if param.choices:
        return f"{param.path} of {', '.join(map(show, param.choices))}"
    return f"{param.path} {param.low:g} to {param.high:g}{' (log)' if param.log else ''}"


def _contenders(experiment: Experiment) -> Sequence[Contender]:
    """Those of a trial of each optimizer and arm, which is enough to tell what is searched."""
    data, model, train = experiment.data[0], experiment.models[0], experiment.training[0]
    pairs = itertools.product(experiment.optimizers, experiment.arms)
    trials = [Trial(data, model, optimizer, train, arm, experiment.seeds[0]) for optimizer, arm in pairs]
    return contenders_of(experiment, trials)


def _hyperparameter_values(param: Hyperparameter) -> dict[str, Any]:
    if param.choices:
        return {
            "path": param.path,
            "key": param.key,
            "choices": list(map(_plain, param.choices)),
        }
    return {
        "path": param.path,
        "key": param.key,
        "low": param.low,
        "high": param.high,
        "log": param.log,
    }


def _plain(value: Value) -> Any:
    """What JSON has no number for is said in words."""
    if isinstance(value, tuple):
        return list(map(_plain, value))
    return show(value) if isinstance(value, float) and value in (float("inf"), -float("inf")) else value
