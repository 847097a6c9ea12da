"""The slow and simple path: gradients of one lane after another by autograd, for models that cannot be stacked."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.func import grad, vmap

from clipbench.engine.layers.replace import layers_for_many
from clipbench.engine.model.lane_tensors import LaneTensors
from clipbench.engine.model.network import Batch, Network, fork_seeded_rng


def reason_to_loop(network: Network, example: Batch) -> str:
    """Return why a model cannot be trained as one tensor program; empty if it can."""
    twin = copy.copy(network)
    twin.module = copy.deepcopy(network.module)
    params = {name: tensor.detach() for name, tensor in twin.module.named_parameters()}
    states = dict(twin.module.named_buffers())
    before = {name: buffer.clone() for name, buffer in states.items()}
    with torch.random.fork_rng(devices=[]):
        random_state = torch.get_rng_state()
        twin.loss(params, states, *example)
        if not torch.equal(random_state, torch.get_rng_state()):
            return "it draws random numbers in training (dropout)"
    changed = [name for name, buffer in states.items() if not torch.equal(buffer, before[name])]
    if changed:
        return f"training changes its buffers ({changed[0]})"
    try:
        params, states = ({name: torch.stack([t, t]) for name, t in group.items()} for group in (params, states))
        # Each lane with its own batch, as with several seeds: `if x.sum() > 0` in a model fails only then.
        x, y = (torch.stack([t, t]) for t in example)
        with layers_for_many():
            vmap(grad(twin.loss))(params, states, x, y)
            vmap(twin.predict)(params, states, x)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        return f"vmap does not support it: {str(error).strip().splitlines()[0]}"
    return ""


class LoopedStep:
    """Loss and gradient of every lane; same interface as a compiled program."""

    path = "looped"

    def __init__(self, tensors: LaneTensors, batch: Batch) -> None:
        self._tensors = tensors
        self._batch = batch

    def __call__(self) -> None:
        tensors = self._tensors
        for lane in range(tensors.lanes):
            with fork_seeded_rng(tensors.seeds[lane], tensors.step):
                loss, grads = loss_and_gradients(tensors, lane, batch_of_lane(self._batch, lane))
            tensors.loss[lane] = loss
            tensors.grads.set_lane(lane, grads)


def loss_and_gradients(tensors: LaneTensors, lane: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of a lane on a batch, and its gradient."""
    params = {name: tensor.detach().requires_grad_() for name, tensor in tensors.params.lane(lane).items()}
    states = {name: stack[lane] for name, stack in tensors.states.items()}
    loss = tensors.network.loss(params, states, *batch)
    grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True, materialize_grads=True)
    return loss.detach(), dict(zip(params, grads, strict=True))


def batch_of_lane(batch: Batch, lane: int) -> Batch:
    x, y = batch
    return x[lane if len(x) > 1 else 0], y[lane if len(y) > 1 else 0]
