"""The multilayer perceptron."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Ge
from torch import nn

from clipbench.plugins.decorators import model

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


@model()
def deep_mlp(
    inputs: int | tuple[int, ...],
    outputs: int,
    depth: Annotated[int, Ge(1)] = 10,
    width: Annotated[int, Ge(1)] = 32,
    activation: Literal["relu", "tanh", "sigmoid", "gelu", "silu"] = "sigmoid",
    scale: Annotated[float, Ge(0)] = 1.0,
) -> nn.Module:
    """Many narrow layers, whose gradients vanish or explode with depth; weights N(0, scale^2 / fan-in), biases 0.

    W_L a(... a(W_1 x)), L = depth + 1          Glorot and Bengio 2010
    """
    network = mlp(inputs, outputs, [width] * depth, activation)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=scale / math.sqrt(parameter.shape[1]))
        else:
            nn.init.zeros_(parameter)
    return network
