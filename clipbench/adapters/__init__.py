"""`Clipper` in the training loops of other libraries; each file imports its library, and nothing else does."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipbench.adapters.accelerate_clip import AccelerateClip
    from clipbench.adapters.clipped_optimizer import ClippedOptimizer
    from clipbench.adapters.lightning_clip import LightningClip
    from clipbench.adapters.trainer_clip import TrainerClip

__all__ = ["AccelerateClip", "ClippedOptimizer", "LightningClip", "TrainerClip"]

_HOMES = {
    "AccelerateClip": "accelerate_clip",
    "ClippedOptimizer": "clipped_optimizer",
    "LightningClip": "lightning_clip",
    "TrainerClip": "trainer_clip",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
