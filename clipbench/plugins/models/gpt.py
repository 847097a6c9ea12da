"""A language model: a decoder-only transformer as GPT-2 and nanoGPT have it."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn import functional

from clipbench.plugins.decorators import model

Whole = Annotated[int, Ge(1)]
DEVIATION = 0.02  # of the initial weights


@model(given=("tokens",))
def gpt(
    inputs: int | tuple[int, ...],
    outputs: int,
    tokens: int,
    width: Whole = 32,
    heads: Whole = 4,
    layers: Whole = 2,
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1,
    tied: bool = True,
) -> nn.Module:
    """A GPT on tokens, with dropout after embeddings, attention and each residual branch, and a score at each step.

    x + drop(attention(norm(x))), x + drop(mlp(norm(x)))    Radford et al. 2019; initialization as in GPT-2

    `tied`: the head's weights are those of the embedding.
    """
    length = math.prod(inputs) if isinstance(inputs, tuple) else inputs
    if not tokens:
        raise ValueError("gpt reads tokens, which are integers; these data are real numbers. Take `transformer`.")
    if width % heads:
        raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
    if tied and tokens != outputs:
        raise ValueError(f"tied weights need as many outputs as tokens, got {outputs} and {tokens}. Write tied: false.")
    return Gpt(tokens, outputs, length, width, heads, layers, dropout, tied)


class GptBlock(nn.Module):
    """Attention to earlier steps, then a hidden layer at each step."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        p = self.dropout if self.training else 0.0
        seen = functional.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)
        x = x + self.drop(self.mixed(seen.transpose(1, 2).flatten(2)))
        return x + self.drop(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class Gpt(nn.Module):
    """Embeddings of tokens and positions, blocks, and a head."""

    def __init__(
        self, tokens: int, outputs: int, length: int, width: int, heads: int, layers: int, dropout: float, tied: bool
    ) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(tokens, width), nn.Embedding(length, width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(GptBlock(width, heads, dropout) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=DEVIATION)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith((".mixed.weight", ".mlp.2.weight")):  # what a block adds to its input, twice
                nn.init.normal_(parameter, std=DEVIATION / math.sqrt(2 * layers))
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.arange(x.shape[1], device=x.device)
        x = self.drop(self.embedding(x) + self.positions(steps))
        return self.head(self.norm(self.blocks(x)))  # type: ignore[no-any-return]
