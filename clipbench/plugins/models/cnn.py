"""Small convolutional networks for images."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from clipbench.plugins.decorators import model

Whole = Annotated[int, Ge(1)]


@model()
def cnn(
    inputs: int | tuple[int, ...],
    outputs: int,
    channels: Sequence[int] = (16, 32),
    hidden: Annotated[int, Ge(0)] = 64,
    kernel: Whole = 3,
    padding: Literal["same", "none"] = "same",
    pool: Literal["max", "average"] = "max",
    pool_after: Literal["each", "last"] = "each",
) -> nn.Module:
    """Convolutions with ReLU and 2 x 2 pooling, after each or only the last, then one hidden layer (0: none).

    head(relu(W flatten(pool(relu(conv(x)))))       flat inputs are read as one square gray image
    """
    depth, height, width = _image(inputs)
    margin = kernel // 2 if padding == "same" else 0
    layers: OrderedDict[str, nn.Module] = OrderedDict(_unflatten(inputs))
    for number, wide in enumerate(channels, start=1):
        layers[f"conv{number}"] = nn.Conv2d(depth, wide, kernel, padding=margin)
        layers[f"relu{number}"] = nn.ReLU()
        depth, height, width = wide, *(side + 2 * margin - kernel + 1 for side in (height, width))
        if pool_after == "each" or number == len(channels):
            layers[f"pool{number}"] = nn.MaxPool2d(2) if pool == "max" else nn.AvgPool2d(2)
            height, width = height // 2, width // 2
    if min(height, width) < 1:
        raise ValueError(f"{len(channels)} layers reduce an image of the shape {_image(inputs)} to nothing")
    layers["flatten"] = nn.Flatten()
    flat = depth * height * width
    if hidden:
        layers.update(hidden=nn.Linear(flat, hidden), relu=nn.ReLU())
    layers["head"] = nn.Linear(hidden or flat, outputs)
    return nn.Sequential(layers)


@model(quiet=("norm",))
def resnet(
    inputs: int | tuple[int, ...],
    outputs: int,
    channels: Sequence[int] = (8, 16),
    blocks: Whole = 1,
    groups: Whole = 4,
    norm: Literal["group", "batch"] = "group",
) -> nn.Module:
    """Residual blocks with group or batch normalization; each new width halves the image.

    relu(x + norm(conv(relu(norm(conv(x))))))   He et al. 2016, arXiv:1512.03385; Wu and He 2018, arXiv:1803.08494
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(_unflatten(inputs))
    layers["stem"] = nn.Conv2d(_image(inputs)[0], channels[0], 3, padding=1, bias=False)
    depth = channels[0]
    for stage, wide in enumerate(channels, start=1):
        for number in range(1, blocks + 1):
            step = 2 if stage > 1 and number == 1 else 1
            layers[f"block{stage}_{number}"] = ResidualBlock(depth, wide, 0 if norm == "batch" else groups, step)
            depth = wide
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(depth, outputs)
    return nn.Sequential(layers)


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut; 0 groups stand for batch normalization."""

    def __init__(self, depth: int, wide: int, groups: int, step: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(depth, wide, 3, stride=step, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, wide) if groups else nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, wide) if groups else nn.BatchNorm2d(wide)
        same = step == 1 and depth == wide
        self.shortcut = nn.Identity() if same else nn.Conv2d(depth, wide, 1, stride=step, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.shortcut(x) + self.norm2(self.conv2(inner)))


def _image(inputs: int | tuple[int, ...]) -> tuple[int, int, int]:
    """Return channels, height and width; gray images may have no channels or be flat."""
    if isinstance(inputs, tuple):
        if len(inputs) not in (2, 3):
            raise ValueError(f"an image must have 2 or 3 dimensions, got data of the shape {inputs}")
        depth, height, width = inputs if len(inputs) == 3 else (1, *inputs)
        return depth, height, width
    side = math.isqrt(inputs)
    if side * side != inputs:
        raise ValueError(f"{inputs} features are not a square image")
    return 1, side, side


def _unflatten(inputs: int | tuple[int, ...]) -> dict[str, nn.Module]:
    """Return the layer that adds channels to images without, if it is needed."""
    depth, height, width = _image(inputs)
    if isinstance(inputs, tuple):
        return {} if len(inputs) == 3 else {"image": nn.Unflatten(1, (depth, height))}
    return {"image": nn.Unflatten(1, (depth, height, width))}
