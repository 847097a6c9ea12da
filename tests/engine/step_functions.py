"""Small models of the usual kinds, with a step of one lane as a pure function of its tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from clipbench.engine.layers.replace import layers_for_many

BATCH = 12
Function = Callable[..., tuple[Tensor, ...]]


class Mlp(nn.Sequential):
    example = (BATCH, 9)

    def __init__(self) -> None:
        super().__init__(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 5))


class Cnn(nn.Sequential):
    example = (BATCH, 2, 8, 8)

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 6, 3, padding=1), nn.GELU(), nn.AvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(24, 5)),
        )


class Recurrent(nn.Module):
    example = (BATCH, 4, 3)

    def __init__(self) -> None:
        super().__init__()
        self.into, self.on, self.out = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        inputs = self.into(x)
        hidden = torch.zeros_like(inputs[:, 0])
        for step in range(x.shape[1]):
            hidden = torch.tanh(inputs[:, step] + self.on(hidden))
        return self.out(hidden)


class Attention(nn.Module):
    example = (BATCH, 6, 8)

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        scores = (query @ key.mT / 2).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(x.shape)
        return self.out((x + mixed).mean(1))


MODELS = (Mlp, Cnn, Recurrent, Attention)


def classification(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target)


def step_of(model: type[nn.Module], lanes: int, dtype: torch.dtype = torch.float32) -> tuple[Function, list[Tensor]]:
    """Loss, gradients and output of one lane as a function of weights, inputs and targets; the weights of all lanes."""
    modules = []
    for seed in range(lanes):
        torch.manual_seed(seed)
        modules.append(model().to(dtype))
    weights, _ = stack_module_state(modules)

    def loss(params: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with layers_for_many():
            output = functional_call(modules[0], params, (x,))
        return classification(output, y), output

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        params = dict(zip(weights, tensors, strict=False))
        grads, (value, output) = grad_and_value(loss, has_aux=True)(params, *tensors[-2:])
        return value, *grads.values(), output

    return step, [w.detach().clone() for w in weights.values()]


def stacked(model: type[nn.Module], lanes: int) -> tuple[Function, list[Tensor]]:
    """The same for all lanes."""
    step, weights = step_of(model, lanes)
    return vmap(step), weights


def batch_of(model: type[nn.Module], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    torch.manual_seed(100)
    return torch.randn(model.example, dtype=dtype), torch.randint(5, (BATCH,))  # type: ignore[attr-defined]


def over(lanes: int, *tensors: Tensor) -> list[Tensor]:
    return [t.expand(lanes, *t.shape) for t in tensors]
