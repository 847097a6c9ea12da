"""Data as training sees them: a fixed set of examples, split and known by its content, or a stream of fresh ones."""

from clipbench.dataset.examples import Arrays, Dataset
from clipbench.dataset.loading import load, read
from clipbench.dataset.stream import Stream
from clipbench.registry import DataProblem

__all__ = ["Arrays", "DataProblem", "Dataset", "Stream", "load", "read"]
