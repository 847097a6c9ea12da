"""clipbench: which gradient-clipping strategy, at which threshold, does a model need, and does it matter at all?"""

import importlib
from typing import TYPE_CHECKING, Any

from clipbench.api import report, run, sweep
from clipbench.commands.result import Result
from clipbench.errors import ClipbenchError, InputError
from clipbench.plugins.decorators import metric, model, strategy

if TYPE_CHECKING:
    from clipbench.clipper import Clipper, clip_
    from clipbench.scripts.standalone import clip_from_args

__version__ = "0.1.0"

__all__ = [
    "ClipbenchError",
    "Clipper",
    "InputError",
    "Result",
    "__version__",
    "clip_",
    "clip_from_args",
    "metric",
    "model",
    "report",
    "run",
    "strategy",
    "sweep",
]


# What needs torch, which is imported when it is asked for.
_LAZY = {
    "Clipper": "clipbench.clipper",
    "clip_": "clipbench.clipper",
    "clip_from_args": "clipbench.scripts.standalone",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
