"""Items of a `torch.utils.data.Dataset`: pairs of inputs and target of one example, checked and put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipbench.plugins.registry import DataProblem

Batch = tuple[Tensor, Tensor]  # inputs and targets
Item = tuple[Any, Any]
NAMES = ("inputs", "the target")


def batch_of(items: Sequence[Item], numbers: Sequence[int]) -> Batch:
    """Return items of one shape as a batch; `numbers` are their places in the data set, for messages."""
    x, y = (_together(name, values, numbers) for name, values in zip(NAMES, zip(*items, strict=True), strict=True))
    return x, y


def checked_item(item: Any, number: int) -> Item:
    """Return an item of the data set that is a pair of numbers or arrays."""
    if isinstance(item, Mapping):
        keys = ", ".join(map(repr, item))
        raise DataProblem(f"example {number} is a mapping of {keys}. Return a pair: `item[...], item[...]`.")
    if not isinstance(item, tuple | list):
        raise DataProblem(f"example {number} must be a pair (x, y), got {type(item).__name__}.")
    if len(item) != 2:
        raise DataProblem(f"example {number} must be a pair (x, y), got {len(item)} values.")
    for name, value in zip(NAMES, item, strict=True):
        if type(value).__module__.partition(".")[0] == "PIL":
            remedy = "Convert it to a tensor, as `torchvision.transforms.ToTensor` does."
            raise DataProblem(f"{name} of example {number} is an image of Pillow. {remedy}")
        if not isinstance(value, Tensor | np.ndarray | np.generic | bool | int | float):
            kind = type(value).__name__
            raise DataProblem(f"{name} of example {number} must be a tensor, an array or a number, got {kind}.")
    return item[0], item[1]


def _together(name: str, values: Sequence[Any], numbers: Sequence[int]) -> Tensor:
    shapes = [tuple(np.shape(value)) for value in values]
    for shape, number in zip(shapes, numbers, strict=True):
        if shape != shapes[0]:
            text = f"{name} of example {number} has the shape {shape}, and that of example {numbers[0]} {shapes[0]}."
            raise DataProblem(f"{text} All examples need one shape: resize, crop or pad them.")
    return numbers_of(torch.stack([_tensor(value) for value in values]))


def _tensor(value: Any) -> Tensor:
    """Return a value as a tensor, of the type in which a `DataLoader` returns it."""
    return value.detach() if isinstance(value, Tensor) else torch.from_numpy(np.array(value))


def numbers_of(tensor: Tensor) -> Tensor:
    """Return real numbers as they are, whole ones as int64, and several labels per example as real numbers."""
    if tensor.is_floating_point():
        return tensor
    return tensor.to(torch.get_default_dtype() if tensor.dtype == torch.bool and tensor.ndim > 1 else torch.int64)
