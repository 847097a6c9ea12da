"""Trial: one training run, fully decided, with its components and training options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Union

# Part of every trial's id. Raise it when the same options would train to other numbers; the second one for trials with
# functions of the user's own.
FORMAT, OWN_FORMAT = 3, 4

# Options that clipbench adds to an arm where they mean something for its rule, unless the rule has one of that name.
ADDED_OPTIONS = ("groups", "after", "warmup", "schedule", "error_if_nonfinite", "scope", "adapt", "noise", "delta")
OF_PARTS = ("scope", "noise", "delta", "adapt")  # of them, those that need the gradients of parts of a batch
ARM_OPTIONS = ("per", "exclude", *ADDED_OPTIONS)
# Schedules of a threshold: the factor of the learning rate, and one over it.
FOLLOW_LR, AGAINST_LR = "follow_lr", "against_lr"

# Fields that are no part of a trial's id at their default, so that one can be added without training anything anew.
QUIET = {"quiet": True}
# Fields that change no number, and are no part of a trial's id and of tables.
ASIDE = {"aside": True}

# Columns that stand for an option by a short name of their own.
SHORT = ("optimizer.lr", "clip.threshold")

Value = Union[bool, int, float, str, None, tuple["Value", ...], "Component"]


@dataclass(frozen=True)
class Component:
    """A plug-in's name with every one of its options, defaults filled in; or a group of options without a name."""

    name: str
    options: tuple[tuple[str, Value], ...] = ()  # sorted by name
    source: str = ""  # hash of the user's own file; empty for a built-in
    folder: str = field(default="", compare=False)  # where `./file.py:function` is looked up
    label: str = field(default="", compare=False)  # with the options that a user set: `norm(per=tensor)`
    left_out: tuple[tuple[str, Value], ...] = field(default=(), compare=False)  # options that are no part of an id
    aside: tuple[tuple[str, Value], ...] = field(default=(), compare=False)  # options that change no number

    @classmethod
    def of(cls, name: str, /, *, source: str = "", folder: str = "", label: str = "", **options: Any) -> Component:
        return cls.with_options(name, options, source=source, folder=folder, label=label)

    @classmethod
    def with_options(
        cls,
        name: str,
        options: Mapping[str, Any],
        source: str = "",
        folder: str = "",
        label: str = "",
        aside: Mapping[str, Any] | None = None,
    ) -> Component:
        """Return a component whose options may have any names."""
        frozen, beside = (
            tuple(sorted((key, _freeze(value)) for key, value in given.items())) for given in (options, aside or {})
        )
        return cls(name, frozen, source, folder, label or name, aside=beside)

    def __getitem__(self, option: str) -> Value:
        return self.as_dict()[option]

    @property
    def arm(self) -> str:
        """The name of a strategy at one threshold, with the digits that Python needs to read it back: `norm@1.0`."""
        options = self.as_dict()
        name = self.label or self.name
        if "threshold" not in options:
            return name
        return f"{name}@{'off' if options['threshold'] is None else options['threshold']}"

    def as_dict(self) -> dict[str, Value]:
        return dict(self.options)

    def without(self, *names: str) -> Component:
        kept = tuple(pair for pair in self.options if pair[0] not in names)
        return replace(self, options=kept)


# The model and the optimizer of a trial whose script makes its own.
NOTHING = Component("")


@dataclass(frozen=True)
class Training:
    """The `train` section of one trial, decided."""

    epochs: int | None = 20  # either epochs or steps
    steps: int | None = None
    batch_size: int | None = 64  # None = the whole training set, in order (`full`)
    drop_last: bool = False
    epoch_steps: int | None = None  # of an epoch, where the data have none
    loss: Component = Component("cross_entropy")
    metrics: tuple[Component, ...] = ()
    schedule: Component | None = None  # of the learning rate
    noise: Component | None = None  # added to the gradient
    l1: float = 0.0  # times the sum of absolute weights, in the objective
    l2: float = 0.0  # times the sum of squared weights
    dtype: str = "float32"
    evaluate_every: int = 1  # epochs
    early_stop: Component | None = None  # named after its measure
    target: tuple[str, float] | None = None  # a measure and the value to reach: gives epochs_to_target
    diverge_above: float | None = None
    save_weights: bool = False
    accumulate: int = field(default=1, metadata=QUIET)  # batches of a step
    ema: float | None = field(default=None, metadata=QUIET)  # decay of the average of the weights that is evaluated
    precision: str = field(default="full", metadata=QUIET)  # or bf16: products as `torch.autocast` computes them
    timeout_per_step: float = field(default=600.0, metadata=ASIDE, compare=False)  # seconds, until it is taken to hang

    @property
    def told(self) -> dict[str, Any]:
        """The options, without those that are left out at their default."""
        return _told(self)

    @property
    def measures(self) -> list[str]:
        """The loss, then the metrics, by the names that tables use."""
        return ["loss", *(metric.name.rpartition(":")[2] for metric in self.metrics)]


@dataclass(frozen=True)
class Trial:
    """One training run, fully decided. Its `id` is the hash of its content, the same everywhere."""

    data: Component | None  # None: the model's output is the loss
    model: Component
    optimizer: Component
    train: Training
    clip: Component
    seed: int
    fingerprint: str = ""  # of the data's content
    script: Component | None = field(default=None, metadata=QUIET)  # trains in place of data, model and optimizer

    @cached_property
    def id(self) -> str:
        content = {name: _content(value) for name, value in _told(self).items()}
        parts = (self.model, self.optimizer, self.train.loss, *self.train.metrics)
        own = self.script is not None or any(part.source for part in parts)
        return digest({"format": OWN_FORMAT if own else FORMAT, **content})

    @property
    def threshold(self) -> float | None:
        threshold = self.clip.as_dict().get("threshold")
        return threshold if isinstance(threshold, float) else None

    @property
    def strategy(self) -> str:
        return self.clip.label or self.clip.name

    @property
    def arm(self) -> str:
        """The name of the strategy at one threshold: `norm@1.0`. Every table, file, report and claim uses it."""
        return self.clip.arm

    def columns(self, *, only_content: bool = False) -> dict[str, Value]:
        """Every option as one flat row: the short names first, then YAML paths.

        With `only_content`, those that are no part of the id at their default are left out.
        """
        row: dict[str, Value] = {
            "arm": self.arm,
            "strategy": self.strategy,
            "data": self.data.name if self.data else None,
            "model": self.model.name or None,
            "optimizer": self.optimizer.name or None,
            "lr": self.optimizer.as_dict().get("lr"),
            "threshold": self.threshold,
            "seed": self.seed,
            "fingerprint": self.fingerprint,
        }
        names = ("clip",) if self.script else ("data", "model", "optimizer", "clip")
        sections = {name: getattr(self, name) for name in names}
        for path, value in (sections | self._training(only_content)).items():
            row.update(_flat(path, value, only_content))
        return {path: value for path, value in row.items() if path not in SHORT}

    def _training(self, only_content: bool) -> dict[str, Any]:
        """Return the options of the section `train`: those of a script are beside its name."""
        if self.script:
            return {"train.script": self.script.name, "train": self.script}
        train = self.train.told if only_content else _without_aside(self.train)
        return {f"train.{name}": value for name, value in train.items()}


def digest(content: object, length: int = 16) -> str:
    """A short hash of JSON-able content that is the same on every machine."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _without_aside(of: Training | Trial) -> dict[str, Any]:
    return {f.name: getattr(of, f.name) for f in fields(of) if f.metadata != ASIDE}


def _told(of: Training | Trial) -> dict[str, Any]:
    quiet = {f.name: f.default for f in fields(of) if f.metadata == QUIET}
    return {name: value for name, value in _without_aside(of).items() if name not in quiet or value != quiet[name]}


def _content(value: Any) -> Any:
    if isinstance(value, Component):
        return [value.name, [[name, _content(option)] for name, option in value.options], value.source]
    if isinstance(value, Training):
        return {name: _content(option) for name, option in value.told.items()}
    if isinstance(value, tuple):
        return [_content(item) for item in value]
    return value


def _freeze(value: Any) -> Value:
    return tuple(_freeze(item) for item in value) if isinstance(value, list | tuple) else value


def _flat(
    path: str, value: Component | Value | tuple[Component, ...], only_content: bool
) -> Iterator[tuple[str, Value]]:
    """Tables have no nesting: a component becomes a column per option, a list its JSON text."""
    if isinstance(value, Component):
        if "." in path and value.name:  # the four sections have columns of their own for their names
            yield path, value.name
        for name, option in (*value.options, *(() if only_content else value.left_out)):
            yield from _flat(f"{path}.{name}", option, only_content)
    elif isinstance(value, tuple):
        yield path, json.dumps([_plain(item) for item in value])
    else:
        yield path, value


def _plain(value: Value) -> Any:
    """Return a part of a list as JSON has it: the name of a plug-in, or the options of a group that has no name."""
    if isinstance(value, Component):
        return value.name or {name: _plain(option) for name, option in value.options}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
