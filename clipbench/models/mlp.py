"""The multilayer perceptron."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import nn

from clipbench.registry import model

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU, "silu": nn.SiLU}


@model()
def mlp(
    inputs: int | tuple[int, ...],
    outputs: int,
    hidden: Sequence[int] = (128,),
    activation: Literal["relu", "tanh", "sigmoid", "gelu", "silu"] = "relu",
    bias: bool = True,
) -> nn.Module:
    """Fully connected layers with an activation between them.

    W_L a(... a(W_1 x + b_1)) + b_L
    """
    features = math.prod(inputs) if isinstance(inputs, tuple) else inputs
    sizes = [features, *hidden]
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for depth, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes), start=1):
        layers[f"hidden{depth}"] = nn.Linear(fan_in, fan_out, bias=bias)
        layers[f"{activation}{depth}"] = ACTIVATIONS[activation]()
    layers["head"] = nn.Linear(sizes[-1], outputs, bias=bias)
    return nn.Sequential(layers)
