"""Lightning: a callback that clips before each step of an optimizer."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch.optim import Optimizer

from clipbench.adapters import refused_step
from clipbench.clipper import ClipInfo, Clipper
from clipbench.clipper.rule_reading import Rule
from clipbench.errors import ClipbenchError


class LightningClip(pl.Callback):  # type: ignore[misc]
    """Clips by one of clipbench's rules: `Trainer(callbacks=[LightningClip("agc@0.01")])`.

    The gradients of each optimizer are clipped on their own. Clipping by the Trainer itself must be off:
    `gradient_clip_val=None`. Under mixed precision, Lightning has divided the gradients by the scale before. What the
    rule remembers is saved with each checkpoint. `options` are those of `clipbench.Clipper`.
    """

    def __init__(self, rule: Rule, **options: Any) -> None:
        self.clippers: list[Clipper] = []  # one of each optimizer
        self.info: ClipInfo | None = None  # of the last step
        self._rule, self._options = rule, options
        self._saved: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.gradient_clip_val:
            text = f"the Trainer clips too: gradient_clip_val is {trainer.gradient_clip_val:g}."
            raise ClipbenchError(f"{text} Leave it out.")
        options = {"steps": _steps(trainer), **self._options}
        self.clippers = []
        for optimizer in trainer.optimizers:
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            named = [(name, p) for name, p in pl_module.named_parameters() if id(p) in held]
            self.clippers.append(Clipper(named, self._rule, **options))
            refused_step.check_rule(self.clippers[-1])
        for clipper, state in zip(self.clippers, self._saved, strict=False):
            clipper.load_state_dict(state)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        number = next(n for n, each in enumerate(trainer.optimizers) if each is optimizer)
        self.info = refused_step.clip(self.clippers[number], optimizer)

    def state_dict(self) -> dict[str, Any]:
        return {"clippers": [clipper.state_dict() for clipper in self.clippers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict["clippers"]


def _steps(trainer: pl.Trainer) -> int | None:
    """Return the number of steps of the training; None if it has no end."""
    steps = trainer.estimated_stepping_batches
    return int(steps) if 0 < steps < float("inf") else None
