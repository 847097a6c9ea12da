"""The summary of an experiment and of its sweep, as lines of text and as plain values."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from clipbench import stats
from clipbench.config.experiment import Experiment
from clipbench.config.values import show
from clipbench.core.trial import Component, Training, Trial
from clipbench.errors import InputError, Problem, shortened
from clipbench.planning.contender import Contender, Hyperparameter
from clipbench.planning.find_contenders import contenders_of

MOST_TRAININGS = 4  # training settings that are written out
LINE = 2000  # characters


def summary_lines(experiment: Experiment) -> Iterator[str]:
    """The experiment as lines of text, those that list very many values without their middle."""
    yield from (shortened(line, LINE) for line in _whole_lines(experiment))


def _whole_lines(experiment: Experiment) -> Iterator[str]:
    counted = f"{count(len(experiment.arms), 'arm')} x {count(len(experiment.seeds), 'seed')}"
    settings = experiment.size // (len(experiment.arms) * len(experiment.seeds))
    others = f" x {count(settings, 'setting')}" if settings > 1 else ""
    yield f"{experiment.name}: {counted}{others} = {count(experiment.size, 'trial')}"
    if experiment.is_script:
        yield f"  script     {_labels(experiment.scripts)}"
        yield "             not run here: an error in it shows in the first trial of `clipbench run`."
    else:
        yield f"  data       {_labels(experiment.data)}"
        yield f"  model      {_labels(experiment.models)}"
        yield f"  optimizer  {_labels(experiment.optimizers)}"
        yield f"  train      {'; '.join(_trainings(experiment))}"
    for strategy, arms in itertools.groupby(experiment.arms, key=lambda arm: arm.label):
        thresholds = [_threshold(arm) for arm in arms if "threshold" in arm.as_dict()]
        yield f"  arm        {strategy}{' at ' if thresholds else ''}{', '.join(thresholds)}"
    yield f"  smallest p {_smallest_p_sentence(experiment)}"
    if experiment.claims:
        yield f"  claims     {_claims_sentence(experiment)}"
    yield from (f"  note       {note}" for note in experiment.notes)


def summary(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain values."""
    return {
        "file": experiment.path,
        "ok": True,
        "name": experiment.name,
        "data": [component.label if component else None for component in experiment.data],
        "models": [component.label for component in experiment.models if component.name],
        "optimizers": [component.label for component in experiment.optimizers if component.name],
        "scripts": [component.label for component in experiment.scripts if component],
        "arms": [arm.arm for arm in experiment.arms],
        "seeds": list(experiment.seeds),
        "trials": experiment.size,
        "smallest_p": stats.smallest_p(len(experiment.seeds), _comparisons(experiment)),
        "smallest_p_sentence": _smallest_p_sentence(experiment),
        "claims_sentence": _claims_sentence(experiment) if experiment.claims else None,
        "notes": list(experiment.notes),
    }


def _comparisons(experiment: Experiment) -> int:
    """The number of strategies that a report compares with the baseline."""
    return max(1, len({arm.label for arm in experiment.arms}) - 1)


def _smallest_p_sentence(experiment: Experiment) -> str:
    comparisons, seeds = _comparisons(experiment), len(experiment.seeds)
    smallest = stats.smallest_p(seeds, comparisons)
    sentence = (
        f"with {count(seeds, 'seed')} and {count(comparisons, 'comparison')}, "
        f"the smallest p after Holm is {smallest:.3g}"
    )
    needed = f"; p < {stats.LEVEL} takes {count(stats.seeds_needed(comparisons), 'seed')}"
    return sentence + (needed if smallest >= stats.LEVEL else "")


def _claims_sentence(experiment: Experiment) -> str:
    """How many claims there are, and whether the largest family of them can be decided."""
    families = Counter(claim.family for claim in experiment.claims)
    most, seeds = max(families.values()), len(experiment.seeds)
    smallest = stats.smallest_p(seeds, most)
    among = f", at most {most} in a family" if len(families) > 1 else ""
    sentence = f"{count(len(experiment.claims), 'claim')}{among}: the smallest p after Holm is {smallest:.3g}"
    if smallest < stats.LEVEL:
        return sentence
    needed = count(stats.seeds_needed(most), "seed")
    fewer = f", or a `family` for each question, or at most {count(known, 'claim')}" if (known := _most(seeds)) else ""
    undecided = f"so that no > or < can be decided with {count(seeds, 'seed')} if all are tested"
    return f"{sentence}, {undecided}; that takes {needed}{fewer}"


def _most(seeds: int) -> int:
    """The largest number of claims in a family that these seeds can decide."""
    return next(n for n in itertools.count() if stats.smallest_p(seeds, n + 1) >= stats.LEVEL)


def problem_values(problem: Problem) -> dict[str, Any]:
    """A mistake as plain values."""
    place = problem.place
    return {
        "file": place.file,
        "line": place.line or None,
        "column": place.column or None,
        "key": place.key or None,
        "text": problem.text,
        "remedy": problem.remedy or None,
    }


def sweep_lines(experiment: Experiment) -> Iterator[str]:
    """The sweep as lines of text; none where the YAML has no sweep."""
    sweep = experiment.sweep
    if not sweep:
        return
    try:
        found = _contenders(experiment)
    except InputError as error:  # `run` takes the file all the same
        yield from (f"  note       sweep: {each.place.key}: {each.text} {each.remedy}" for each in error.problems)
        return
    searching = f"{sweep.trials} points per arm on {count(sweep.seeds, 'seed')}, sampler {sweep.sampler}"
    yield f"  sweep      {searching}; the best confirmed on {count(sweep.confirm_seeds, 'fresh seed')}"
    searched = [contender for contender in found if contender.hyperparameters]
    yield from dict.fromkeys(
        f"  search     {each.name}: {', '.join(map(range_words, each.hyperparameters))}" for each in searched
    )
    for left_out in dict.fromkeys(contender.left_out for contender in searched if contender.left_out):
        yield f"  note       {', '.join(left_out)}: outside the search range and ignored by `sweep`."


def sweep_values(experiment: Experiment) -> dict[str, Any] | None:
    """The sweep as plain values; None where the YAML has none."""
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
            {"contender": contender.label, **range_values(param)}
            for contender in found
            for param in contender.hyperparameters
        ],
        "left_out": [arm for contender in found for arm in contender.left_out],
    }


def range_words(param: Hyperparameter) -> str:
    """What is searched of an option: `lr 0.01 to 1 (log)`."""
    if param.choices:
        return f"{param.path} of {', '.join(map(show, param.choices))}"
    return f"{param.path} {param.low:g} to {param.high:g}{' (log)' if param.log else ''}"


def range_values(param: Hyperparameter) -> dict[str, Any]:
    """The same as plain values."""
    where = {"path": param.path, "key": param.key}
    if param.choices:
        return {**where, "choices": list(param.choices)}
    return {**where, "low": param.low, "high": param.high, "log": param.log}


def count(number: int, noun: str) -> str:
    """Return `1 seed`, `2,000 seeds`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _contenders(experiment: Experiment) -> Sequence[Contender]:
    """The contenders of one trial for each optimizer or script and arm, which is enough to tell what is searched."""
    data, model, train = experiment.data[0], experiment.models[0], experiment.training[0]
    parts = itertools.product(experiment.optimizers, experiment.scripts, experiment.arms)
    trials = [
        Trial(data, model, optimizer, train, arm, experiment.seeds[0], script=script)
        for optimizer, script, arm in parts
    ]
    return contenders_of(experiment, trials)


def _labels(components: tuple[Component | None, ...]) -> str:
    return "; ".join(dict.fromkeys(component.label if component else "none" for component in components))


def _trainings(experiment: Experiment) -> Iterator[str]:
    has_data = experiment.data != (None,)
    yield from (_training(training, has_data) for training in experiment.training[:MOST_TRAININGS])
    if len(experiment.training) > MOST_TRAININGS:
        yield f"and {len(experiment.training) - MOST_TRAININGS} more"


def _training(training: Training, has_data: bool) -> str:
    length = count(training.epochs, "epoch") if training.epochs else count(training.steps or 0, "step")
    batches = f"batch size {training.batch_size}" if training.batch_size else "full batches"
    loss = "default loss" if training.loss.name == "auto" else training.loss.label
    return ", ".join([length, *([batches] if has_data else []), loss, *_extras(training)])


def _extras(training: Training) -> Iterator[str]:
    """The options that differ from their defaults."""
    if training.dtype != "float32":
        yield training.dtype
    if training.precision != "full":
        yield training.precision
    if training.accumulate > 1:
        yield f"{training.accumulate} batches a step"
    if training.ema is not None:
        yield f"average of weights {training.ema:g}"
    for name in ("schedule", "noise"):
        component = getattr(training, name)
        if component:
            yield f"{name} {component.label}"
    for name in ("l1", "l2"):
        if getattr(training, name):
            yield f"{name} {getattr(training, name):g}"
    if training.early_stop:
        yield f"early stop by {training.early_stop.name}"


def _threshold(arm: Component) -> str:
    threshold = arm["threshold"]
    return "off" if threshold is None else f"{threshold:g}"
