"""Hugging Face: a callback of `transformers.Trainer` that clips before each step of the optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from clipbench.adapters import refused_step
from clipbench.clipper import ClipInfo, Clipper
from clipbench.clipper.rule_reading import Rule
from clipbench.errors import ClipbenchError

FILE = "clipper.pt"  # in the folder of a checkpoint


class TrainerClip(TrainerCallback):  # type: ignore[misc]
    """Clips by one of clipbench's rules: `Trainer(..., callbacks=[TrainerClip("agc@0.01")])`.

    Clipping by the Trainer itself must be off: `TrainingArguments(max_grad_norm=0.0)`. What the rule remembers is
    saved with each checkpoint. `options` are those of `clipbench.Clipper`.
    """

    def __init__(self, rule: Rule, **options: Any) -> None:
        self.clipper: Clipper | None = None
        self.info: ClipInfo | None = None  # of the last step
        self._rule, self._options = rule, options

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.max_grad_norm and args.max_grad_norm > 0:
            text = f"the Trainer clips too: max_grad_norm is {args.max_grad_norm:g}."
            raise ClipbenchError(f"{text} Write TrainingArguments(..., max_grad_norm=0.0).")
        self.clipper = Clipper(kwargs["model"], self._rule, **{"steps": state.max_steps, **self._options})
        refused_step.check_rule(self.clipper)
        saved = _folder(args, state) / FILE
        if state.global_step and saved.exists():
            self.clipper.load_state_dict(torch.load(saved, map_location="cpu", weights_only=True))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        assert self.clipper is not None  # made when training began
        optimizer = kwargs["optimizer"]
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        if (scaler := getattr(optimizer, "scaler", None)) is not None:
            scaler.unscale_(inner)
        self.info = refused_step.clip(self.clipper, inner)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.clipper is not None and state.is_world_process_zero:
            torch.save(self.clipper.state_dict(), _folder(args, state) / FILE)


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Return the folder of the checkpoint of a step, where the Trainer puts it."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
