"""clipbench: which gradient-clipping strategy, at which threshold, does a model need, and does it matter at all?"""

from clipbench.api import report, run, sweep
from clipbench.commands.result import Result
from clipbench.errors import ClipbenchError, InputError
from clipbench.plugins.decorators import metric, model, strategy

__version__ = "0.1.0"

__all__ = [
    "ClipbenchError",
    "InputError",
    "Result",
    "__version__",
    "metric",
    "model",
    "report",
    "run",
    "strategy",
    "sweep",
]
