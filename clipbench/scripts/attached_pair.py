"""A model and its optimizer in a training script, and the rule that clips between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clipbench.clipper import ClipInfo, Clipper
from clipbench.core.trial import Component
from clipbench.errors import ClipbenchError


class ScriptError(ClipbenchError):
    """A script uses `clip` in a way that would make its results wrong."""


class AttachedPair:
    """One model with its optimizer and perhaps a gradient scaler, and what was done since the last backward pass."""

    def __init__(
        self, name: str, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any, arm: Component, steps: int
    ) -> None:
        self.name, self.model, self.optimizer, self.scaler = name, model, optimizer, scaler
        self.updates_scaler = scaler is not None  # not if other pairs share it: the script updates it after all of them
        self.clipper = Clipper(model, arm.without("error_if_nonfinite"), steps=steps or None, measure=True)
        self._info: ClipInfo | None = None  # of the last gradient
        self._is_clipped = False  # the gradient, which the optimizer has not used yet
        self._is_stepping = False
        self._has_stepped = False  # the loop has called optimizer.step after `apply`
        optimizer.register_step_pre_hook(self._before_step)

    def unscale(self) -> None:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)

    def apply(self) -> ClipInfo | None:
        """Clip the gradient; return None for a rule that acts after the optimizer."""
        if self._is_clipped:
            raise ScriptError(f"the gradient{self._of} was clipped twice. Call clip.commit(loss) after clip.apply().")
        if not self._has_gradient:
            raise ScriptError(
                f"no parameter{self._of} has a gradient: there was no loss.backward() since the last step, or "
                "clip.step was called twice."
            )
        self._is_clipped = True
        self._info = None if self.clipper.acts_after_optimizer else self.clipper(self.optimizer)
        return self._info

    def commit(self) -> ClipInfo:
        """Take the optimizer's step, unless the loop has taken it or the rule refuses it, and clear the gradient."""
        if not self._is_clipped:
            raise ScriptError(f"clip.commit was called before clip.apply{self._of}.")
        self._is_stepping = True
        try:
            done = self._info if self._has_stepped else None
            info = done or self.clipper.commit(self.optimizer, self.scaler)
        finally:
            self._is_clipped = self._is_stepping = self._has_stepped = False
        if self.updates_scaler:
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return info

    def weights_are_finite(self) -> bool:
        with torch.no_grad():
            found: list[Tensor] = [p.detach().abs().amax() for p in self.model.parameters() if p.numel()]
            return bool(torch.stack([value.to(found[0]) for value in found]).isfinite().all()) if found else True

    @property
    def _has_gradient(self) -> bool:
        return any(p.grad is not None for group in self.optimizer.param_groups for p in group["params"])

    @property
    def _of(self) -> str:
        return f" of {self.name}" if self.name else ""

    def _before_step(self, *_: Any) -> None:
        """Check a step of the optimizer that clip.step has not taken."""
        if self._is_stepping or not self._has_gradient:  # without a gradient, a step changes nothing
            return
        if not self._is_clipped:
            raise ScriptError(
                f"optimizer.step(){self._of} was called with a gradient that is not clipped. Call clip.step(loss) in "
                "its place, or clip.apply() before it and clip.commit(loss) after it."
            )
        if self.clipper.acts_after_optimizer or self.clipper.refuses:
            raise ScriptError(
                f"{self.clipper.arm.arm} decides about the optimizer's step, which clip.commit(loss) must take: remove "
                "optimizer.step()."
            )
        self._has_stepped = True
