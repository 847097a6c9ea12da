"""The slow and obvious path: one lane after another by autograd, for models that cannot be stacked."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import grad, vmap

from clipbench.engine.layers.replace import layers_for_many
from clipbench.engine.model.functional import Network

if TYPE_CHECKING:
    from clipbench.engine.gradients.workspace import Workspace

Batch = tuple[Tensor, Tensor]


def reason_to_loop(network: Network, example: Batch) -> str:
    """Why a model cannot be trained as one tensor program; empty if it can."""
    twin = copy.copy(network)
    twin.module = copy.deepcopy(network.module)
    params = {name: tensor.detach() for name, tensor in twin.module.named_parameters()}
    states = dict(twin.module.named_buffers())
    before = {name: buffer.clone() for name, buffer in states.items()}
    with torch.random.fork_rng(devices=[]):
        random_state = torch.get_rng_state()
        twin.loss(params, states, *example)
        if not torch.equal(random_state, torch.get_rng_state()):
            return "it draws random numbers while it trains (dropout)"
    changed = [name for name, buffer in states.items() if not torch.equal(buffer, before[name])]
    if changed:
        return f"training changes its buffers ({changed[0]})"
    try:
        params, states = ({name: torch.stack([t, t]) for name, t in group.items()} for group in (params, states))
        # Each lane with a batch of its own, as seeds have: a model that asks `if x.sum() > 0` shows only then.
        x, y = (torch.stack([t, t]) for t in example)
        with layers_for_many():
            vmap(grad(twin.loss))(params, states, x, y)
            vmap(twin.predict)(params, states, x)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        return f"vmap refuses it: {str(error).strip().splitlines()[0]}"
    return ""


class LoopedStep:
    """Loss and gradient of every lane; same interface as a compiled program."""

    path = "looped"

    def __init__(self, workspace: Workspace, batch: Batch) -> None:
        self._work = workspace
        self._batch = batch

    def __call__(self) -> None:
        work = self._work
        for lane in range(work.lanes):
            params = {name: tensor.detach().requires_grad_() for name, tensor in work.params.lane(lane).items()}
            states = {name: stack[lane] for name, stack in work.states.items()}
            with noise(work.seeds[lane], work.step):
                loss = work.network.loss(params, states, *of_lane(self._batch, lane))
            grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True, materialize_grads=True)
            work.loss[lane] = loss.detach()
            work.grads.set_lane(lane, dict(zip(params, grads, strict=True)))


def of_lane(batch: Batch, lane: int) -> Batch:
    x, y = batch
    return x[lane if len(x) > 1 else 0], y[lane if len(y) > 1 else 0]


@contextmanager
def noise(seed: int, step: int) -> Iterator[None]:
    """Random numbers of a seed's own for each step: they move no batch, and lanes of a seed share them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((seed * 1_000_003 + step) % 2**63)
        yield
