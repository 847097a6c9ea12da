"""`clip_`: a rule without memory as a function, in the place of `torch.nn.utils.clip_grad_norm_`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clipbench.clipper.clip_info import ClipInfo
from clipbench.clipper.clipper import Clipper
from clipbench.clipper.named_parameters import Parameters
from clipbench.clipper.rule_reading import Rule
from clipbench.errors import InputError, Place


def clip_(
    model: Parameters, rule: Rule, *, exclude: str | Iterable[str] = (), measure: bool = False, **options: Any
) -> ClipInfo:
    """Clip gradients in place, as `Clipper(...)()` does, by a rule that needs nothing of earlier steps."""
    clipper = Clipper(model, rule, exclude=exclude, measure=measure, **options)
    if clipper.needs_history:
        text = "a step depends on those before it, which clip_ does not know."
        raise InputError.at(Place(clipper.arm.arm), text, "Make a clipbench.Clipper once, and call it at every step.")
    return clipper()
