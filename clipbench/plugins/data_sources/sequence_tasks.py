"""Sequence tasks that need memory, as streams: new sequences at every step."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Generator, Tensor

from clipbench.plugins.decorators import dataset

Batch = tuple[Tensor, Tensor]

SYMBOLS = 6  # of `temporal_order`: two relevant ones, four distractors
DIGITS = 8  # of `copy`


@dataset()
def temporal_order(generator: Generator, batch_size: int, length: Annotated[int, Ge(10)] = 20) -> Batch:
    """One-hot symbols; the class is which two relevant symbols are near the start and the middle, in their order.

    class = v_0 + 2 v_1             Hochreiter and Schmidhuber 1997; Pascanu et al. 2013, arXiv:1211.5063
    """
    symbols = torch.randint(2, SYMBOLS, (batch_size, length), generator=generator)
    which = torch.randint(0, 2, (batch_size, 2), generator=generator)
    places = torch.randint(0, length // 10, (batch_size, 2), generator=generator)
    symbols.scatter_(1, places + torch.tensor([length // 10, length // 2]), which)
    return torch.nn.functional.one_hot(symbols, SYMBOLS).float(), which[:, 0] + 2 * which[:, 1]


@dataset()
def adding(generator: Generator, batch_size: int, length: Annotated[int, Ge(2)] = 50) -> Batch:
    """Numbers from 0 to 1, two of which are marked, one in each half; the target is their sum.

    y = v_i + v_j                   Hochreiter and Schmidhuber 1997; as in Le et al. 2015, arXiv:1504.00941
    """
    values = torch.rand(batch_size, length, generator=generator)
    half = length // 2
    first = torch.randint(0, half, (batch_size, 1), generator=generator)
    second = torch.randint(half, length, (batch_size, 1), generator=generator)
    places = torch.cat([first, second], dim=1)
    marks = torch.zeros_like(values).scatter_(1, places, 1.0)
    return torch.stack([values, marks], dim=2), values.gather(1, places).sum(1, keepdim=True)


@dataset()
def copy(
    generator: Generator, batch_size: int, length: Annotated[int, Ge(1)] = 10, delay: Annotated[int, Ge(1)] = 20
) -> Batch:
    """Symbols out of eight, a long blank, then a signal to repeat them in order. A target for each time step.

    y = (blank ..., s_1 ... s_n)    Hochreiter and Schmidhuber 1997; as in Arjovsky et al. 2016, arXiv:1511.06464
    """
    blank, signal = 0, DIGITS + 1
    kept = torch.randint(1, DIGITS + 1, (batch_size, length), generator=generator)
    inputs = torch.full((batch_size, delay + 2 * length), blank)
    inputs[:, :length] = kept
    inputs[:, -length - 1] = signal
    targets = torch.full_like(inputs, blank)
    targets[:, -length:] = kept
    return torch.nn.functional.one_hot(inputs, DIGITS + 2).float(), targets
