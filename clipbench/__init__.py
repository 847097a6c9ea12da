"""clipbench: which gradient-clipping strategy, at which threshold, does a model need, and does it matter at all?"""

from typing import TYPE_CHECKING, Any

from clipbench.api import report, run, sweep
from clipbench.commands.result import Result
from clipbench.errors import ClipbenchError, InputError
from clipbench.plugins.decorators import metric, model, strategy

if TYPE_CHECKING:
    from clipbench.clipper import Clipper, clip_

__version__ = "0.1.0"

__all__ = [
    "ClipbenchError",
    "Clipper",
    "InputError",
    "Result",
    "__version__",
    "clip_",
    "metric",
    "model",
    "report",
    "run",
    "strategy",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for."""
    if name not in ("Clipper", "clip_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from clipbench.clipper import Clipper, clip_

    return {"Clipper": Clipper, "clip_": clip_}[name]
