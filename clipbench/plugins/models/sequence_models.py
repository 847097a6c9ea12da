"""Recurrent networks and a transformer, for sequences of vectors or of tokens.

An example is [time, features], or [time] of integers, the tokens, which are embedded. An image is read row by row,
and so are flat inputs that form a square; other flat inputs are read number by number. If the data have a target for
each step, so has the output: [batch, time, classes].
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from clipbench.plugins.decorators import model

Whole = Annotated[int, Ge(1)]
Inputs = int | tuple[int, ...]
GIVEN = ("tokens", "every_step")
# Default standard deviations of the initializations of arXiv:1211.5063.
STDS = {"basic": 0.1, "smart": 0.01, "sigmoid": 0.01}
SMART_ENTRIES, SMART_RADIUS = 15, 0.95


@model(given=GIVEN)
def rnn(
    inputs: Inputs,
    outputs: int,
    tokens: int,
    every_step: bool,
    hidden: Whole = 50,
    layers: Whole = 1,
    activation: Literal["tanh", "relu", "sigmoid"] = "tanh",
    init: Literal["default", "basic", "smart", "sigmoid"] = "default",
    std: Annotated[float, Gt(0)] | None = None,
    embedding: Whole = 16,
) -> nn.Module:
    """A plain recurrent network; its output is computed from the last state, or from each if each step has a target.

    h_t = a(W_in x_t + W_rec h_t-1 + b)       Elman 1990; torch.nn.RNN

    `init` is torch's `default` or one of arXiv:1211.5063, all with biases 0: `basic`, all weights N(0, std), std 0.1;
    `sigmoid`, the same with std 0.01; `smart`, W_in and W_out N(0, std), std 0.01, and W_rec with 15 entries per unit
    and spectral radius 0.95.
    """
    if init == "default" and std is not None:
        raise ValueError("std needs init: basic, smart or sigmoid")
    steps, features, _ = _steps(inputs, tokens, embedding)
    if activation == "sigmoid":
        cells: nn.RNN = SigmoidRNN(features, hidden, layers, batch_first=True)
    else:
        cells = nn.RNN(features, hidden, layers, nonlinearity=activation, batch_first=True)
    network = Recurrent(steps, cells, nn.Linear(hidden, outputs), every_step)
    if init != "default":
        _initialize(network, STDS[init] if std is None else std, smart=init == "smart")
    return network


@model(given=GIVEN)
def gru(
    inputs: Inputs,
    outputs: int,
    tokens: int,
    every_step: bool,
    hidden: Whole = 32,
    layers: Whole = 1,
    embedding: Whole = 16,
) -> nn.Module:
    """Gated recurrent units; the output is computed from the last state, or from each if each step has a target.

    h_t = (1 - z) n + z h_t-1                 Cho et al. 2014, arXiv:1406.1078; torch.nn.GRU
    """
    steps, features, _ = _steps(inputs, tokens, embedding)
    cells = nn.GRU(features, hidden, layers, batch_first=True)
    return Recurrent(steps, cells, nn.Linear(hidden, outputs), every_step)


@model(given=GIVEN)
def lstm(
    inputs: Inputs,
    outputs: int,
    tokens: int,
    every_step: bool,
    hidden: Whole = 32,
    layers: Whole = 1,
    embedding: Whole = 16,
) -> nn.Module:
    """Long short-term memory; the output is computed from the last state, or from each if each step has a target.

    h_t = o tanh(c_t), c_t = f c_t-1 + i g    Hochreiter and Schmidhuber 1997; torch.nn.LSTM
    """
    steps, features, _ = _steps(inputs, tokens, embedding)
    cells = nn.LSTM(features, hidden, layers, batch_first=True)
    return Recurrent(steps, cells, nn.Linear(hidden, outputs), every_step)


@model(given=GIVEN)
def transformer(
    inputs: Inputs,
    outputs: int,
    tokens: int,
    every_step: bool,
    width: Whole = 32,
    heads: Whole = 4,
    layers: Whole = 2,
    hidden: Whole = 64,
    causal: bool | None = None,
) -> nn.Module:
    """A small transformer: pre-norm blocks and learned positions; its output is that of the mean, or of each step.

    x + attention(norm(x)), x + mlp(norm(x))  Vaswani et al. 2017, arXiv:1706.03762; pre-norm: arXiv:2002.04745

    `causal`: a step attends to no later step; the default is whether each step has a target. A causal transformer
    uses the last step instead of the mean.
    """
    if width % heads:
        raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
    causal = every_step if causal is None else causal
    steps, features, length = _steps(inputs, tokens, width)
    into = nn.Identity() if tokens else nn.Linear(features, width)
    blocks = [TransformerBlock(width, heads, hidden, causal) for _ in range(layers)]
    return Transformer(nn.Sequential(steps, into), length, blocks, nn.Linear(width, outputs), causal, every_step)


class Recurrent(nn.Module):
    """Recurrent layers over the steps of an example, and a head on their state."""

    def __init__(self, steps: nn.Module, cells: nn.RNNBase, head: nn.Linear, every_step: bool) -> None:
        super().__init__()
        self.steps, self.cells, self.head = steps, cells, head
        self.every_step = every_step

    def forward(self, x: Tensor) -> Tensor:
        states, last = self.cells(self.steps(x))
        if self.every_step:
            return self.head(states)  # type: ignore[no-any-return]
        hidden = last[0] if isinstance(last, tuple) else last  # an LSTM has two
        return self.head(hidden[-1])  # type: ignore[no-any-return]


class SigmoidRNN(nn.RNN):
    """`nn.RNN` with sigmoid units, which torch does not have."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        lasts = []
        for into, on, into_bias, on_bias in self.all_weights:
            hidden, states, weight = x.new_zeros(len(x), self.hidden_size), [], on.mT
            for given in functional.linear(x, into, into_bias + on_bias).unbind(1):
                hidden = torch.sigmoid(given + hidden @ weight)
                states.append(hidden)
            x = torch.stack(states, 1)
            lasts.append(hidden)
        return x, torch.stack(lasts)


class TransformerBlock(nn.Module):
    """Attention between steps, then a hidden layer at each step."""

    def __init__(self, width: int, heads: int, hidden: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        x = x + self.mixed(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Transformer blocks over the steps of an example and their positions."""

    def __init__(
        self,
        steps: nn.Module,
        length: int,
        blocks: list[TransformerBlock],
        head: nn.Linear,
        causal: bool,
        every_step: bool,
    ) -> None:
        super().__init__()
        self.steps, self.blocks = steps, nn.Sequential(*blocks)
        self.positions = nn.Parameter(0.02 * torch.randn(length, head.in_features))
        self.norm, self.head = nn.LayerNorm(head.in_features), head
        self.causal, self.every_step = causal, every_step

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.steps(x) + self.positions))
        if not self.every_step:
            x = x[:, -1] if self.causal else x.mean(1)
        return self.head(x)  # type: ignore[no-any-return]


def _steps(inputs: Inputs, tokens: int, embedding: int) -> tuple[nn.Module, int, int]:
    """Return the layer that turns examples into [batch, time, features], the number of features, and the length."""
    if isinstance(inputs, tuple) and len(inputs) == 2:
        return nn.Identity(), inputs[1], inputs[0]
    if isinstance(inputs, tuple) and len(inputs) == 3:
        channels, height, width = inputs
        return Rows(), channels * width, height
    length = math.prod(inputs) if isinstance(inputs, tuple) else inputs
    if tokens:
        return nn.Embedding(tokens, embedding), embedding, length
    side = math.isqrt(length)
    shape = (side, side) if side > 1 and side * side == length else (length, 1)
    return nn.Unflatten(1, shape), shape[1], shape[0]


class Rows(nn.Module):
    """The rows of an image [channels, height, width], from top to bottom."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


def _initialize(network: Recurrent, std: float, smart: bool) -> None:
    for name, parameter in network.named_parameters():
        if name.startswith("steps."):
            continue
        if parameter.ndim < 2:
            nn.init.zeros_(parameter)
        elif smart and ".weight_hh" in name:
            _sparse(parameter)
        else:
            nn.init.normal_(parameter, std=std)


@torch.no_grad()
def _sparse(weight: Tensor) -> None:
    """Set a few entries per unit, scaled to the spectral radius."""
    size = len(weight)
    entries = torch.rand(size, size).argsort(1)[:, : min(SMART_ENTRIES, size)]
    weight.zero_().scatter_(1, entries, torch.randn(entries.shape))
    weight.mul_(SMART_RADIUS / torch.linalg.eigvals(weight).abs().max().clamp(min=1e-6))
