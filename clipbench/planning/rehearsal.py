"""Rehearsal: two real steps and one evaluation of a trial, which show what fails in a user's own function.

Built-in functions are not rehearsed: tests hold that they work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from clipbench.core.trial import Component, Training, Trial
from clipbench.datasets import Dataset, Stream
from clipbench.engine.chunk_training import ChunkTraining
from clipbench.engine.gradients.workspace import Workspace, WorkspaceShape
from clipbench.engine.inputs.batches import TrainingLength
from clipbench.engine.model.examination import refuse_shared_state
from clipbench.engine.model.python_state import Snapshot, shared_by, snapshot
from clipbench.plugins import registry

MOST_DRAWN = 100_000  # examples
# The keys of kinds of functions in the YAML.
KEYS = {"optimizer": "optimizer", "strategy": "clip", "schedule": "train.schedule", "noise": "train.noise"}


def combinations(
    optimizers: Sequence[Component],
    arms: Sequence[Component],
    train: Training,
    data: Component | None,
    model: Component,
) -> list[tuple[int, int]]:
    """Return the numbers of the optimizers and arms that are rehearsed: each function of the user's own once."""
    own = [(number, 0) for number in _own(optimizers)] + [(0, number) for number in _own(arms)]
    others = (data, model, train.loss, *train.metrics, train.schedule, train.noise)
    parts = [component for component in others if component]
    return list(dict.fromkeys(own)) or [(0, 0)] * bool(_own(parts))


def rehearse(trial: Trial, dataset: Dataset | None) -> None:
    """Take two steps and evaluate every part of the data, as in training; raise what fails."""
    train = replace(trial.train, epochs=None, steps=2)
    short = replace(trial, train=train, clip=trial.clip.without("scope", "adapt", "noise", "delta"))
    workspace = Workspace(WorkspaceShape.of([short], "cpu", "it is a rehearsal"), dataset, slots=1)
    training = ChunkTraining([short], workspace)
    states: list[dict[str, Snapshot]] = []
    training.rehearse(
        lambda: states.append(
            _shared_state(trial, [type(own.optimizer) for group in training.groups for own in group.own])
        )
    )
    refuse_shared_state(*states)
    if isinstance(dataset, Stream):
        _draw(dataset, trial)


def _shared_state(trial: Trial, optimizers: Sequence[type]) -> dict[str, Snapshot]:
    """Return the state that all trials share of the user's functions that no examination has looked at."""
    train = trial.train
    components = {
        "optimizer": trial.optimizer,
        "strategy": trial.clip,
        "schedule": train.schedule,
        "noise": train.noise,
    }
    plugins = {kind: registry.of(kind, component) for kind, component in components.items() if component}
    own = {KEYS[kind]: plugin.function for kind, plugin in plugins.items() if plugin.source}
    return {key: snapshot(function) | shared_by([function, *optimizers]) for key, function in own.items()}


def _draw(stream: Stream, trial: Trial) -> None:
    """Draw the first batches of the trial, which must not show classes that the model does not know."""
    length, draw = TrainingLength.of(trial.train, stream), torch.Generator().manual_seed(trial.seed)
    for _ in range(min(length.steps, MOST_DRAWN // length.batch)):
        stream.batch(draw, length.batch)


def _own(components: Sequence[Component]) -> list[int]:
    """Return the numbers of the components that are the user's own, the first of each function."""
    own = {component.name: number for number, component in reversed(list(enumerate(components))) if component.source}
    return sorted(own.values())
