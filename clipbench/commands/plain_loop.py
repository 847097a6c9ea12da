"""The plain PyTorch training loop, one model at a time, to which `bench` compares the engine."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench import datasets
from clipbench.core.trial import Trial
from clipbench.datasets import Dataset, Stream
from clipbench.engine.model.network import build_model
from clipbench.engine.optimizers import optimizer_of
from clipbench.execution.process_limits import cores

Batch = tuple[Tensor, Tensor]

WARM_UP = 20


def steps_per_second(trial: Trial, seconds: float, device: str = "cpu", threads: int = 0) -> float:
    """Measure the steps of one model, clipped by norm, without telemetry; 0 threads means torch's default."""
    torch.set_num_threads(threads or cores())
    loaded = datasets.load(trial.data) if trial.data else None
    model = build_model(trial.model, loaded, trial.seed).to(device)
    optimizer = optimizer_of(trial.optimizer, list(model.named_parameters()))
    done, start = 0, 0.0
    for x, y in _batches(loaded, trial, device):
        optimizer.zero_grad()
        torch.autograd.backward(_loss(model(x), y) if loaded else model())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done += 1
        if done == WARM_UP:
            start = _now(device)
        elif done > WARM_UP and done % 16 == 0 and time.perf_counter() - start > seconds:
            break
    return (done - WARM_UP) / (_now(device) - start)


def _loss(output: Tensor, target: Tensor) -> Tensor:
    if output.ndim > 2:  # classes at every time step
        output, target = output.flatten(0, -2), target.flatten()
    return F.cross_entropy(output, target)


def _batches(loaded: Dataset | None, trial: Trial, device: str) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(trial.seed)
    if loaded is None:
        nothing = torch.zeros(1)
        yield from itertools.repeat((nothing, nothing))
    elif isinstance(loaded, Stream):
        while True:
            x, y = loaded.batch(generator, loaded.batch_size(trial.train.batch_size))
            yield x.to(device), y.to(device)
    else:
        x, y = (torch.as_tensor(part).to(device) for part in loaded.train)
        x = x.float() if x.is_floating_point() else x
        while True:
            for chosen in torch.split(torch.randperm(len(x), generator=generator), trial.train.batch_size or len(x)):
                yield x[chosen], y[chosen]


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
