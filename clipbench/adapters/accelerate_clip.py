"""Accelerate: clipping in the place of `accelerator.clip_grad_norm_`."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from torch.optim import Optimizer

from clipbench.adapters import refused_step
from clipbench.clipper import ClipInfo, Clipper
from clipbench.clipper.named_parameters import Parameters
from clipbench.clipper.rule_reading import Rule


class AccelerateClip:
    """Clips between `accelerator.backward(loss)` and `optimizer.step()`: `clip(optimizer)`.

    Make it after `accelerator.prepare`, with the prepared model. While gradients are accumulated, it does nothing.
    `model`, `rule` and `options` are those of `clipbench.Clipper`.
    """

    def __init__(self, accelerator: Accelerator, model: Parameters, rule: Rule, **options: Any) -> None:
        self.clipper = Clipper(model, rule, **options)
        refused_step.check_rule(self.clipper)
        self._accelerator = accelerator
        accelerator.register_for_checkpointing(self.clipper)

    def __call__(self, optimizer: Optimizer) -> ClipInfo | None:
        """Clip the gradients that `optimizer` will use; return None where they are not complete yet."""
        if not self._accelerator.sync_gradients:
            return None
        self._accelerator.unscale_gradients(optimizer)
        return refused_step.clip(self.clipper, optimizer)
