"""The global random generators of a process: of torch on the CPU and on GPUs, of `random`, and of numpy."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

STRIDE = 1_000_003  # between the numbers of consecutive seeds: so many steps have numbers of their own


def step_number(seed: int, step: int) -> int:
    """Return the number with which the generators are seeded for a step, from 1, of a trial with that seed."""
    return seed * STRIDE + step


def seed_all(number: int) -> None:
    """Seed every global generator with one number."""
    # `torch.manual_seed` would write down the Python stack for a GPU that was not used yet, which takes as long as a
    # step of a small model.
    torch.default_generator.manual_seed(number % 2**63)
    if _uses_cuda():
        torch.cuda.manual_seed_all(number % 2**63)
    random.seed(number % 2**63)
    np.random.seed(number % 2**32)


class States(NamedTuple):
    """The states of all generators."""

    torch: Tensor
    cuda: list[Tensor]
    random: Any
    numpy: Any

    @classmethod
    def now(cls) -> States:
        cuda = torch.cuda.get_rng_state_all() if _uses_cuda() else []
        return cls(torch.get_rng_state(), cuda, random.getstate(), np.random.get_state())

    @classmethod
    def seeded(cls, number: int) -> States:
        """Return the states after seeding with a number, and leave the generators as they are."""
        with preserved():
            seed_all(number)
            return cls.now()

    def restore(self) -> None:
        """Give all generators these states."""
        torch.set_rng_state(self.torch)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        random.setstate(self.random)
        np.random.set_state(self.numpy)

    def are_those_of(self, other: States) -> bool:
        """Whether no generator was drawn from or seeded between the two."""
        tensors = zip([self.torch, *self.cuda], [other.torch, *other.cuda], strict=True)
        numpy = np.array_equal(self.numpy[1], other.numpy[1]) and self.numpy[2:] == other.numpy[2:]
        return numpy and self.random == other.random and all(torch.equal(*pair) for pair in tensors)


@contextmanager
def preserved() -> Iterator[None]:
    """Give all generators back the states that they had before."""
    before = States.now()
    try:
        yield
    finally:
        before.restore()


def _uses_cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
