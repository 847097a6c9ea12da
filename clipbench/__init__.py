"""clipbench: which gradient-clipping strategy, at which threshold, does a model need, and does it matter at all?"""

from clipbench.plugins.registry import metric, model, strategy

__version__ = "0.1.0"

__all__ = ["__version__", "metric", "model", "strategy"]
