"""Training by the `Trainer` of Hugging Face's transformers in a script: `clip` takes and records its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from clipbench.scripts.attached_pair import ScriptError
from clipbench.scripts.script_clip import ScriptClip

# What `Trainer.evaluate` returns beside the measures of the model.
TIMINGS = ("runtime", "_per_second", "jit_compilation_time", "model_preparation_time")


class ScriptTrainerCallback(TrainerCallback):  # type: ignore[misc]
    """Connects a `Trainer` with the `clip` object of a script.

        trainer.add_callback(ScriptTrainerCallback(clip, trainer))

    It attaches the model and the optimizer when training begins, clips and takes each step of the optimizer, reports
    what `Trainer` evaluates, `eval_loss` as `val/loss`, and stops the training when the trial is pruned. `Trainer` must
    not clip itself: `TrainingArguments(max_grad_norm=0)`.

    The loss of a step that is recorded is the sum of what `trainer.training_step` has returned since the step before:
    the terms that gradients were computed of, each divided by the number of batches of the step or by that of its
    items. It is not taken from the logs, which are means over several steps and leave out losses that are not finite.
    """

    def __init__(self, clip: ScriptClip, trainer: Any) -> None:
        self._clip = clip
        self._loss: Tensor | float = 0.0
        self._training_step = trainer.training_step
        trainer.training_step = self._counted_step

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if args.max_grad_norm:
            raise ScriptError(
                f"Trainer would clip too, got max_grad_norm={args.max_grad_norm}. Write TrainingArguments(..., "
                "max_grad_norm=0)."
            )
        if args.fp16:
            raise ScriptError("Trainer scales the loss of fp16 itself, which `clip` cannot undo. Write bf16=True.")
        optimizer = getattr(given["optimizer"], "optimizer", given["optimizer"])  # that is inside accelerate's
        self._clip.attach(given["model"], optimizer, steps=state.max_steps)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Take the whole step, so that a rule may refuse it; the step of `Trainer` finds no gradient afterwards."""
        self._clip.step(self._loss)
        self._loss = 0.0

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any], **given: Any) -> None:
        if (found := measures_of(metrics, "eval", "val")) and self._clip.report(found):
            control.should_training_stop = True

    def _counted_step(self, model: Any, inputs: Any, *given: Any, **options: Any) -> Tensor:
        (inputs,) = self._clip.steps([inputs])
        loss: Tensor = self._training_step(model, inputs, *given, **options)
        self._loss = self._loss + loss.detach()
        return loss


def measures_of(metrics: Mapping[str, Any], prefix: str, part: str) -> dict[str, float]:
    """Return the measures among the metrics of an evaluation: `test_loss` is `test/loss`."""
    named = {name.removeprefix(f"{prefix}_"): value for name, value in metrics.items() if name.startswith(f"{prefix}_")}
    return {f"{part}/{name}": value for name, value in named.items() if not name.endswith(TIMINGS)}
