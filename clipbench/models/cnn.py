"""Small convolutional networks for images."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from clipbench.registry import model


@model()
def cnn(
    inputs: int | tuple[int, ...],
    outputs: int,
    channels: Sequence[int] = (16, 32),
    hidden: int = 64,
    kernel: int = 3,
) -> nn.Module:
    """Convolutions with ReLU and 2 x 2 max pooling, then one hidden layer.

    head(relu(W flatten(pool(relu(conv(x)))))       flat inputs are read as one square grey image
    """
    depth, height, width = _image(inputs)
    layers: OrderedDict[str, nn.Module] = OrderedDict(image=nn.Unflatten(1, (depth, height, width)))
    if isinstance(inputs, tuple):
        del layers["image"]
    for number, wide in enumerate(channels, start=1):
        layers[f"conv{number}"] = nn.Conv2d(depth, wide, kernel, padding=kernel // 2)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        depth, height, width = wide, height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    layers["hidden"] = nn.Linear(depth * height * width, hidden)
    layers["relu"] = nn.ReLU()
    layers["head"] = nn.Linear(hidden, outputs)
    return nn.Sequential(layers)


def _image(inputs: int | tuple[int, ...]) -> tuple[int, int, int]:
    if isinstance(inputs, tuple) and len(inputs) == 3:
        return inputs
    if isinstance(inputs, tuple) and len(inputs) == 2:
        raise ValueError(f"an image needs channels, height and width; the data have the shape {inputs}")
    side = math.isqrt(math.prod(inputs) if isinstance(inputs, tuple) else inputs)
    if side * side != (math.prod(inputs) if isinstance(inputs, tuple) else inputs):
        raise ValueError(f"{inputs} features are not a square image")
    return 1, side, side
