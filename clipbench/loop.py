"""The plain PyTorch loop as people write it, one model at a time: what the cohort engine is measured beside."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench import dataset
from clipbench.engine.network import build_model
from clipbench.engine.optimizing import make_optimizer
from clipbench.executors.local import cores
from clipbench.trial import Trial

WARM_UP = 20


def steps_per_second(trial: Trial, seconds: float, device: str = "cpu") -> float:
    """Steps of one model, clipped by norm, with torch's default threads and without any telemetry."""
    torch.set_num_threads(cores())
    loaded = dataset.load(trial.data) if trial.data else None
    if loaded is None:
        raise ValueError("the plain loop needs data")
    model = build_model(trial.model, loaded, trial.seed).to(device)
    optimizer = make_optimizer(trial.optimizer, list(model.parameters()))
    x = torch.as_tensor(loaded.train[0], dtype=torch.float32, device=device)
    y = torch.as_tensor(loaded.train[1], device=device)
    done, start = 0, 0.0
    for batch in _batches(len(x), trial.train.batch_size or len(x), trial.seed):
        optimizer.zero_grad()
        torch.autograd.backward(_loss(model(x[batch]), y[batch]))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done += 1
        if done == WARM_UP:
            start = _now(device)
        elif done > WARM_UP and done % 16 == 0 and time.perf_counter() - start > seconds:
            break
    return (done - WARM_UP) / (_now(device) - start)


def _loss(output: Tensor, target: Tensor) -> Tensor:
    if output.ndim > 2:  # a class at every step
        output, target = output.flatten(0, -2), target.flatten()
    return F.cross_entropy(output, target)


def _batches(examples: int, size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.split(torch.randperm(examples, generator=generator), size)


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
