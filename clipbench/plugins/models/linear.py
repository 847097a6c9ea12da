"""Linear models, also deep ones."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from clipbench.plugins.decorators import model


@model()
def linear(inputs: int | tuple[int, ...], outputs: int, bias: bool = True) -> nn.Module:
    """Linear or, with cross entropy, logistic regression.

    W x + b
    """
    features = math.prod(inputs) if isinstance(inputs, tuple) else inputs
    return nn.Sequential(
        OrderedDict(flatten=nn.Flatten(), head=nn.Linear(features, outputs, bias=bias)),
    )


@model()
def linear_net(
    inputs: int | tuple[int, ...],
    outputs: int,
    hidden: Sequence[int] = (5,),
    std: float | None = None,
    bias: bool = True,
) -> nn.Module:
    """A deep linear network: layers without activations, whose gradients explode or vanish with depth.

    W_L ... W_2 W_1 x               `std`: all weights N(0, std), biases 0; else torch's default
    """
    features = math.prod(inputs) if isinstance(inputs, tuple) else inputs
    sizes = [features, *hidden]
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for depth, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes), start=1):
        layers[f"hidden{depth}"] = nn.Linear(fan_in, fan_out, bias=bias)
    layers["head"] = nn.Linear(sizes[-1], outputs, bias=bias)
    network = nn.Sequential(layers)
    if std is not None:
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=std) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    return network
