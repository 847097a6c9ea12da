"""Data as training sees them: a fixed set of examples, split and known by its content, or read batch by batch."""

from clipbench.datasets.data_advice import advice
from clipbench.datasets.dataset import Arrays, Dataset, EndlessDataset
from clipbench.datasets.loading import load, load_checked, read
from clipbench.datasets.stream import Stream
from clipbench.datasets.unloaded import NumberedDataset, PassesDataset
from clipbench.plugins.registry import DataProblem

__all__ = [
    "Arrays",
    "DataProblem",
    "Dataset",
    "EndlessDataset",
    "NumberedDataset",
    "PassesDataset",
    "Stream",
    "advice",
    "load",
    "load_checked",
    "read",
]
