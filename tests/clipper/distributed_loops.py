"""Training loops of several processes, each of which compares its clipping with that of one process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import clipbench
from clipbench.errors import Unsupported

STEPS = 4
# At thresholds at which each of them acts.
ARMS = [
    "norm@0.3",
    "norm(p=1, per=unit)@0.5",
    "norm(p=inf, per=tensor)@0.05",
    "norm(per=column, exclude=[out.bias])@0.1",
    "norm(groups=[*.bias: 0.5, *: 2.0])@0.2",
    "agc@0.02",
    "rms@0.02",
    "value@0.02",
    "relative@0.3",
    "centralize",
    "sign_step@0.01",
    "skip@1.5",
    "drop@1.5",
    "zclip(warmup=1)@0.5",
    "ema_norm(per=unit)@1.01",
    "autoclip(window=3, per=tensor)@20",
]


def model_of() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential()
    model.add_module("first", nn.Linear(6, 9))
    model.add_module("tanh", nn.Tanh())
    model.add_module("middle", nn.Linear(9, 5))
    model.add_module("out", nn.Linear(5, 1))
    return model


def batches(rank: int | None) -> list[tuple[Tensor, Tensor]]:
    """The batches of a process, or whole ones."""
    draw = torch.Generator().manual_seed(7)
    found = [(torch.randn(8, 6, generator=draw), 3 * torch.randn(8, 1, generator=draw)) for _ in range(STEPS)]
    return found if rank is None else [(x[4 * rank : 4 * rank + 4], y[4 * rank : 4 * rank + 4]) for x, y in found]


def train(model: nn.Module, arm: str, rank: int | None, wrap: Callable[[nn.Module], nn.Module]) -> list[Tensor]:
    """Return the weights after training, then the statistics of each step."""
    model = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    clippers = [clipbench.Clipper(model, arm, measure=measure) for measure in (True, False)]
    rows = []
    for x, y in batches(rank):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        before = [p.grad.clone() for p in model.parameters()]
        info = clippers[0]()
        measured = [_whole(p.grad) for p in model.parameters()]
        rows.append(torch.cat([info.statistics, info.keep.view(1), info.norm.view(1), info.fired.view(1)]))
        for p, gradient in zip(model.parameters(), before, strict=True):
            p.grad = gradient
        again = clippers[1].step(optimizer)
        for p, gradient in zip(model.parameters(), measured, strict=True):
            torch.testing.assert_close(_whole(p.grad), gradient)
        assert bool(again.fired) == bool(info.fired) and bool(again.keep) == bool(info.keep)
    return [_whole(p.detach()) for p in model.parameters()] + rows


def _whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def compare(rank: int, wrap: Callable[[nn.Module], nn.Module], kind: str) -> None:
    for arm in ARMS if kind == "FSDP" else ARMS[::4]:
        alone, ours = train(model_of(), arm, None, lambda model: model), train(model_of(), arm, rank, wrap)
        for one, other in zip(alone, ours, strict=True):
            torch.testing.assert_close(
                other, one, rtol=2e-5, atol=1e-6, msg=lambda text, arm=arm: f"{kind}: {arm}: {text}"
            )


def shard(model: nn.Module) -> nn.Module:
    fully_shard(model.middle)
    return fully_shard(model)


def shard_some(model: nn.Module) -> nn.Module:
    """The last layer is a whole one in every process, whose gradients the loop would have to average."""
    fully_shard(model, ignored_params=set(model.out.parameters()))
    for parameter in model.out.parameters():
        parameter.register_hook(_mean)
    return model


def _mean(gradient: Tensor) -> Tensor:
    gradient = gradient.clone()
    dist.all_reduce(gradient)
    return gradient / dist.get_world_size()


def replicate_and_shard(model: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicate", "shard"))
    return fully_shard(model, mesh=mesh)


def refuse() -> None:
    """What does not work says so."""
    model = shard(model_of())
    for arm in ("max_norm@0.1", "norm(after=momentum)@1.0"):
        model(torch.ones(2, 6)).sum().backward()
        try:
            clipbench.Clipper(model, arm).step(torch.optim.SGD(model.parameters()))
        except Unsupported as error:
            assert "does not work on distributed parameters" in str(error)
        else:
            raise AssertionError(f"{arm} was not refused")


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank = int(sys.argv[1])
    store = dist.FileStore(sys.argv[2], 2)
    dist.init_process_group("gloo", rank=rank, world_size=2, store=store, timeout=timedelta(seconds=60))
    kinds = {
        "DDP": DistributedDataParallel,
        "FSDP": shard,
        "FSDP of some": shard_some,
        "HSDP": replicate_and_shard,
    }
    for kind, wrap in kinds.items():
        compare(rank, wrap, kind)
    refuse()
    dist.destroy_process_group()
    print("equal", flush=True)
    os._exit(0)  # gloo's threads may wait for the other process
