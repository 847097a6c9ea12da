"""Data as training sees them: a fixed set of examples, split and known by its content, or a stream of fresh ones."""

from clipbench.datasets.data_advice import advice
from clipbench.datasets.dataset import Arrays, Dataset
from clipbench.datasets.loading import load, read
from clipbench.datasets.stream import Stream
from clipbench.plugins.registry import DataProblem

__all__ = ["Arrays", "DataProblem", "Dataset", "Stream", "advice", "load", "read"]
