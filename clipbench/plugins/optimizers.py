"""Optimizers of torch. They work element by element, so they train many stacked models as they train one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from clipbench.plugins.registry import Plugin

# Options of the implementation, which the engine sets, and `maximize`, which the sign of a loss replaces.
HIDDEN = ("foreach", "fused", "capturable", "differentiable", "maximize")


def make_optimizer(plugin: Plugin, named: Sequence[tuple[str, nn.Parameter]], options: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer of a plug-in, which is given the parameters, or (name, parameter) if it asks for `named`."""
    passed = {"params": [parameter for _, parameter in named], "named": list(named)}
    optimizer = plugin.function(**{name: passed[name] for name in plugin.given}, **options)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"it returned {type(optimizer).__name__}, not a torch.optim.Optimizer")
    return optimizer


def elementwise(name: str, function: type[Optimizer], formula: str) -> Plugin:
    facts = {"elementwise": True, "hidden": HIDDEN, "doc": formula}
    return Plugin("optimizer", name, function, facts)


sgd = elementwise(
    "sgd",
    torch.optim.SGD,
    """Stochastic gradient descent, with momentum, dampening, Nesterov's form and weight decay.

    w - lr (momentum b + g)         torch.optim.SGD""",
)
adam = elementwise(
    "adam",
    torch.optim.Adam,
    """Steps scaled by running moments of the gradient.

    w - lr m / (sqrt(v) + eps)      Kingma and Ba 2014, arXiv:1412.6980; torch.optim.Adam""",
)
adamw = elementwise(
    "adamw",
    torch.optim.AdamW,
    """Adam with decoupled weight decay.

    w (1 - lr decay) - lr m / (sqrt(v) + eps)       Loshchilov and Hutter 2017, arXiv:1711.05101""",
)
adamax = elementwise(
    "adamax",
    torch.optim.Adamax,
    """Adam with the infinity norm.

    w - lr m / u, u = max(b2 u, |g|)    Kingma and Ba 2014, arXiv:1412.6980; torch.optim.Adamax""",
)
nadam = elementwise(
    "nadam",
    torch.optim.NAdam,
    """Adam with Nesterov momentum.

    Dozat 2016; torch.optim.NAdam""",
)
radam = elementwise(
    "radam",
    torch.optim.RAdam,
    """Adam whose variance is rectified in the first steps.

    Liu et al. 2019, arXiv:1908.03265; torch.optim.RAdam""",
)
adagrad = elementwise(
    "adagrad",
    torch.optim.Adagrad,
    """Steps scaled by the sum of squared gradients.

    w - lr g / (sqrt(sum g^2) + eps)    Duchi et al. 2011; torch.optim.Adagrad""",
)
adadelta = elementwise(
    "adadelta",
    torch.optim.Adadelta,
    """Steps scaled by running averages of squared gradients and of squared steps.

    Zeiler 2012, arXiv:1212.5701; torch.optim.Adadelta""",
)
rmsprop = elementwise(
    "rmsprop",
    torch.optim.RMSprop,
    """Steps scaled by a running average of squared gradients.

    w - lr g / (sqrt(v) + eps)      Hinton 2012; torch.optim.RMSprop""",
)
rprop = elementwise(
    "rprop",
    torch.optim.Rprop,
    """Steps that depend on signs of the gradient alone, each element with its own step size.

    Riedmiller and Braun 1993; torch.optim.Rprop""",
)
asgd = elementwise(
    "asgd",
    torch.optim.ASGD,
    """Averaged stochastic gradient descent.

    Polyak and Juditsky 1992; torch.optim.ASGD""",
)
