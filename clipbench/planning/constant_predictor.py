"""The measures of a constant prediction, which a model that has learnt anything beats."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from clipbench.core import generators
from clipbench.datasets import Dataset
from clipbench.datasets.dataset import is_labels
from clipbench.engine.model.network import Network, tensors_of


def constants_of(tried: Iterable[tuple[Network, Dataset | None]]) -> dict[str, dict[str, float]]:
    """Return the metrics of the best constant on each data set, by its fingerprint."""
    found: dict[str, dict[str, float]] = {}
    for network, dataset in tried:
        if dataset is not None:
            values = _measures(network, dataset)
            found.setdefault(dataset.fingerprint, {}).update(values)
    return found


def _measures(network: Network, dataset: Dataset) -> dict[str, float]:
    """Return the metrics of the best constant on each part: `test/accuracy`; empty if there is no such constant.

    It predicts the frequencies of the classes or labels of the training part, or the mean of its targets, in the shape
    of the model's output. The loss is left out, because a user's own may expect other values.
    """
    output = _output(network, dataset)
    constant = None if output is None else _constant(dataset, output)
    if constant is None or output is None:
        return {}
    found: dict[str, float] = {}
    for part, pair in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test)):
        if pair is None:
            continue
        _, y = tensors_of(pair, network.dtype)
        try:
            values = network.measures(constant.expand(len(y), *output.shape[1:]), y)
        except Exception:  # noqa: BLE001 - the user's own function may fail in any way on what is no model's output
            return {}
        _, *metrics = zip(network.names, values, strict=True)
        found |= {f"{part}/{name}": float(value) for name, value in metrics}
    return found


def _output(network: Network, dataset: Dataset) -> Tensor | None:
    """An output of the model on two examples; None if it has none."""
    if network.loss_is_output:
        return None
    x, y = (array[:2] for array in dataset.train)
    with torch.no_grad(), generators.preserved():
        return network.plain_output(tensors_of((x, y), network.dtype)[0])


def _constant(dataset: Dataset, output: Tensor) -> Tensor | None:
    """The prediction for one example."""
    y, shape = dataset.train[1], output.shape[1:]
    if dataset.classes:
        if not shape or shape[-1] != dataset.outputs:
            return None
        shares = np.bincount(y.ravel(), minlength=dataset.outputs) / y.size
        return torch.as_tensor(shares).clamp_min(1e-9).log().to(output.dtype)
    mean = y.mean(axis=0)
    if is_labels(y):
        mean = np.log(np.clip(mean, 1e-9, 1) / np.clip(1 - mean, 1e-9, 1))
    if np.size(mean) != int(np.prod(shape)):
        return None
    return torch.as_tensor(mean).reshape(shape).to(output.dtype)
