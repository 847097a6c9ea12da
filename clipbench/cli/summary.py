"""What an experiment amounts to, in a few lines or as plain values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from clipbench import stats
from clipbench.commands.progress import duration
from clipbench.config.experiment import Experiment
from clipbench.core.trial import Component, Training
from clipbench.errors import Problem

if TYPE_CHECKING:
    from clipbench.commands.run import Preview

MOST_TRAININGS = 4  # that are written out


def summary_lines(experiment: Experiment) -> Iterator[str]:
    """The experiment for a terminal."""
    counted = f"{_count(len(experiment.arms), 'arm')} x {_count(len(experiment.seeds), 'seed')}"
    settings = experiment.size // (len(experiment.arms) * len(experiment.seeds))
    others = f" x {_count(settings, 'setting')}" if settings > 1 else ""
    yield f"{experiment.name}: {counted}{others} = {_count(experiment.size, 'trial')}"
    yield f"  data       {_labels(experiment.data)}"
    yield f"  model      {_labels(experiment.models)}"
    yield f"  optimizer  {_labels(experiment.optimizers)}"
    yield f"  train      {'; '.join(_trainings(experiment))}"
    for strategy, arms in itertools.groupby(experiment.arms, key=lambda arm: arm.label):
        thresholds = [_threshold(arm) for arm in arms if "threshold" in arm.as_dict()]
        yield f"  arm        {strategy}{' at ' if thresholds else ''}{', '.join(thresholds)}"
    yield from (f"  note       {note}" for note in experiment.notes)


def summary(experiment: Experiment) -> dict[str, Any]:
    """The experiment for a program."""
    return {
        "file": experiment.path,
        "ok": True,
        "name": experiment.name,
        "data": [component.label if component else None for component in experiment.data],
        "models": [component.label for component in experiment.models],
        "optimizers": [component.label for component in experiment.optimizers],
        "arms": [arm.arm for arm in experiment.arms],
        "seeds": list(experiment.seeds),
        "trials": experiment.size,
        "notes": list(experiment.notes),
    }


def problem_values(problem: Problem) -> dict[str, Any]:
    """A mistake for a program."""
    place = problem.place
    return {
        "file": place.file,
        "line": place.line or None,
        "column": place.column or None,
        "key": place.key or None,
        "text": problem.text,
        "remedy": problem.remedy or None,
    }


def preview_lines(preview: Preview) -> Iterator[str]:
    """What a run would do, for a terminal."""
    yield from summary_lines(preview.plan.experiment)
    document = preview_document(preview)
    paths = "looped" if any(cohort.loop_reason for cohort in preview.plan.cohorts) else "vectorised"
    yield f"  done       {preview.done} of {len(preview.plan.trials)} trials"
    yield (
        f"  to train   {document['missing']} trials in {_count(len(preview.chunks), 'chunk')} of {paths} lanes, "
        f"{_count(preview.workers, 'worker')} on {preview.device}"
    )
    yield f"  time       about {duration(preview.seconds)}"
    yield f"  memory     about {preview.bytes / 2**20:,.0f} MB"
    yield f"  p          {document['smallest_p_sentence']}"
    yield from (f"  note       {note}" for note in preview.plan.notes if note not in preview.plan.experiment.notes)


def preview_document(preview: Preview) -> dict[str, Any]:
    """What a run would do, for a program."""
    experiment = preview.plan.experiment
    strategies = {arm.label for arm in experiment.arms}
    comparisons, seeds = max(1, len(strategies) - 1), len(experiment.seeds)
    smallest = stats.smallest_p(seeds, comparisons)
    sentence = (
        f"{_count(seeds, 'seed')} and {_count(comparisons, 'comparison')}: the smallest p after Holm is {smallest:.3g}"
    )
    if smallest >= stats.LEVEL:
        sentence += f", never below {stats.LEVEL}; that takes {stats.seeds_needed(comparisons)} seeds"
    return {
        **summary(experiment),
        "trials": len(preview.plan.trials),
        "done": preview.done,
        "missing": sum(len(chunk.trials) for chunk in preview.chunks),
        "cohorts": len(preview.plan.cohorts),
        "chunks": len(preview.chunks),
        "workers": preview.workers,
        "device": preview.device,
        "seconds": preview.seconds,
        "bytes": preview.bytes,
        "smallest_p": smallest,
        "smallest_p_sentence": sentence,
    }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _labels(components: tuple[Component | None, ...]) -> str:
    return "; ".join(dict.fromkeys(component.label if component else "none" for component in components))


def _trainings(experiment: Experiment) -> Iterator[str]:
    has_data = experiment.data != (None,)
    yield from (_training(training, has_data) for training in experiment.training[:MOST_TRAININGS])
    if len(experiment.training) > MOST_TRAININGS:
        yield f"and {len(experiment.training) - MOST_TRAININGS} more"


def _training(training: Training, has_data: bool) -> str:
    length = _count(training.epochs, "epoch") if training.epochs else _count(training.steps or 0, "step")
    batches = f"batches of {training.batch_size}" if training.batch_size else "full batches"
    loss = "the loss that the targets ask for" if training.loss.name == "auto" else training.loss.label
    return ", ".join([length, *([batches] if has_data else []), loss, *_extras(training)])


def _extras(training: Training) -> Iterator[str]:
    """What is not as usual."""
    if training.dtype != "float32":
        yield training.dtype
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
