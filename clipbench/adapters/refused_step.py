"""How a rule works where a library takes the optimizer's steps itself."""

from __future__ import annotations

from torch.optim import Optimizer

from clipbench.clipper import ClipInfo, Clipper
from clipbench.errors import ClipbenchError


def check_rule(clipper: Clipper) -> None:
    """Refuse rules that would have to act after the step."""
    if clipper.acts_after_optimizer:
        text = f"{clipper.arm.arm} acts after the optimizer's step, which the library takes."
        raise ClipbenchError(f"{text} Wrap the optimizer: clipbench.adapters.ClippedOptimizer(optimizer, model, rule).")


def clip(clipper: Clipper, optimizer: Optimizer) -> ClipInfo:
    """Clip before the library takes the step; of a refused step, the gradients are removed.

    Without a gradient, an optimizer of torch changes neither a parameter nor its state.
    """
    info = clipper(optimizer)
    if clipper.refuses and not bool(info.keep):
        optimizer.zero_grad(set_to_none=True)
    return info
