"""The measures of a constant prediction, which a model that has learnt anything beats."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from clipbench.core.trial import Training
from clipbench.datasets import Dataset
from clipbench.datasets.dataset import is_labels
from clipbench.engine.model.network import Network


def constants_of(tried: Iterable[tuple[nn.Module, Training, Dataset | None]]) -> dict[str, dict[str, float]]:
    """Return the metrics of the best constant on each data set, by its fingerprint."""
    found: dict[str, dict[str, float]] = {}
    for module, train, dataset in tried:
        if dataset is not None:
            values = _measures(Network(module, train, has_data=True), dataset)
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
        y = torch.as_tensor(pair[1])
        y = y.to(network.dtype) if y.is_floating_point() else y
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
    x = torch.as_tensor(dataset.train[0][:2])
    params, states = dict(network.module.named_parameters()), dict(network.module.named_buffers())
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return network.predict(params, states, x.to(network.dtype) if x.is_floating_point() else x)


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
