"""The command bench: the speed of cohorts and of a plain PyTorch loop on this machine, measured in turns."""

from __future__ import annotations

import math
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbench.commands import jax_peer
from clipbench.errors import ClipbenchError
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.plan import Chunk, Plan

MODELS = ("mlp", "cnn", "rnn", "transformer")
# Data and training options by kind of model: small images; short sequences in small batches, as in arXiv:1211.5063;
# characters; an objective without data.
IMAGES = "data: digits\ntrain: {epochs: 40, batch_size: 64, evaluate_every: 40}"
SEQUENCES = (
    "data: {name: temporal_order, length: 20, split: {val: 0, test: 64}}\n"
    "train: {steps: 600, batch_size: 20, epoch_steps: 600}"
)
CHARACTERS = (
    "data: {name: text, length: 32, characters: 20000, split: {val: 0.1, test: 0.1}}\n"
    "train: {epochs: 5, batch_size: 16, evaluate_every: 5}"
)
NOTHING = "train: {steps: 1000, loss: output}"
SETTINGS = {
    **dict.fromkeys(("rnn", "gru", "lstm", "transformer"), SEQUENCES),
    "gpt": CHARACTERS,
    **dict.fromkeys(("quadratic", "power", "scalar_rnn", "rosenbrock"), NOTHING),
}
# Rules of all kinds, so that the speed includes the cost of clipping and telemetry.
EXPERIMENT = """
name: bench
model: {model}
{setting}
optimizer: {{name: sgd, lr: {lr}, momentum: 0.9}}
clip:
  - none
  - {{name: norm, threshold: [0.1, 1.0]}}
  - {{name: norm, per: tensor, threshold: 0.1}}
  - {{name: value, threshold: [0.001, 0.01]}}
  - {{name: zero, threshold: 0.1}}
  - {{name: normalize, threshold: 0.5}}
seeds: {seeds}
"""
ARMS = 8
HEADER = "model        parameters  lanes  plain loop   of 1 thread       cohort     times  engine"
JAX = "          jax  over jax"
LOOP_SECONDS = 2.0


@dataclass(frozen=True)
class Speed:
    """One model's speed, in steps of one model per second; medians over rounds."""

    model: str
    parameters: int
    lanes: int
    loop: float  # with torch's default threads
    loop_one_thread: float
    cohort: float
    # Cohort over the faster loop: median of the ratios of rounds, since the speed of a machine drifts between rounds.
    ratio: float
    engine: str
    note: str | None  # why the engine did not take its fastest way
    jax: float | None = None  # on all cores
    over_jax: float | None = None  # median of the ratios of rounds


def header(peers: bool) -> str:
    return HEADER.replace("  engine", JAX + "  engine") if peers else HEADER


def line(speed: Speed, peers: bool = False) -> str:
    jax = f"  {speed.jax:9,.0f} /s  {speed.over_jax:7.2f}x" if speed.jax else f"{'':{len(JAX)}}" if peers else ""
    return (
        f"{speed.model:11}  {speed.parameters:10,}  {speed.lanes:5}  {speed.loop:8,.0f} /s"
        f"  {speed.loop_one_thread:8,.0f} /s  {speed.cohort:9,.0f} /s  {speed.ratio:5.1f}x{jax}  {speed.engine}"
        + (f": {speed.note}" if speed.note else "")
    )


def measure(
    models: Sequence[str], lanes: int, rounds: int, device: str, workers: int | None, peers: bool = False
) -> Iterator[Speed]:
    """Measure each model. The plain loop runs in its own process, with torch's default threads and with one thread.

    With `peers`, JAX is measured too at the models that it is written for.
    """
    if peers and not jax_peer.is_installed():
        raise ClipbenchError("--peers: JAX is not installed. Install it: pip install jax")
    with WorkerPool(1) as alone, WorkerPool(workers) as pool:
        device = alone.call("clipbench.commands.devices:choose", device)
        if device != "cpu" and not workers:
            pool.size = 1
        for model in models:
            plan = _plan(alone, model, lanes)
            chunks = plan.chunks((), pool.size, device)
            _, engine, note = _train(pool, chunks, device)  # traces and warms up
            lane_steps = sum(chunk.lane_steps for chunk in chunks)
            peer = jax_peer.JaxPeer(model) if peers and model in jax_peer.TOGETHER else None
            rows = []
            for _ in range(rounds):
                jax = peer.steps_per_second() if peer else math.nan
                rows.append((*_loops(alone, plan, device), lane_steps / _train(pool, chunks, device)[0], jax))
            if peer:
                peer.close()
            ratio = statistics.median(cohort / max(loop, one) for loop, one, cohort, _ in rows)
            loop, one, cohort, jax = map(statistics.median, zip(*rows, strict=True))
            beside = (jax, statistics.median(row[2] / row[3] for row in rows)) if peer else (None, None)
            parameters = plan.cohorts[0].parameters
            yield Speed(model, parameters, len(plan.trials), loop, one, cohort, ratio, engine, note, *beside)


def _loops(alone: WorkerPool, plan: Plan, device: str) -> tuple[float, float]:
    """Steps per second of the plain loop, with torch's default threads and with one."""
    default, one = (
        alone.call("clipbench.commands.plain_loop:steps_per_second", plan.trials[1], LOOP_SECONDS, device, threads)
        for threads in (0, 1)
    )
    return default, one


def _plan(pool: WorkerPool, model: str, lanes: int) -> Plan:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.yaml"
        name = (*re.findall(r"name:\s*(\w+)", model), model)[0]
        setting = SETTINGS.get(name, IMAGES)
        lr = 1e-6 if setting == NOTHING else 0.05  # an objective that diverges would end early
        path.write_text(EXPERIMENT.format(model=model, setting=setting, lr=lr, seeds=max(1, lanes // ARMS)))
        plan: Plan = pool.call("clipbench.planning.build:prepare", str(path))
        return plan


def _train(pool: WorkerPool, chunks: Sequence[Chunk], device: str) -> tuple[float, str, str | None]:
    """Return the seconds, the engine that computed the steps, and why it is not the fastest."""
    start, engine, note = time.perf_counter(), "", None
    for event in pool.train(chunks, device):
        if event.error:
            raise ClipbenchError(f"the benchmark failed: {event.error}")
        if event.records:
            engine, note = (event.records.records[name][0] for name in ("engine", "engine_note"))
    return time.perf_counter() - start, str(engine), note
