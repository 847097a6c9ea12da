"""The command bench: the speed of cohorts and of a plain PyTorch loop on this machine, measured in turns."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbench.errors import ClipbenchError
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.plan import Chunk, Plan

MODELS = ("mlp", "cnn", "rnn", "transformer")
# Data and training options by kind of model: small images; short sequences in small batches, as in arXiv:1211.5063;
# an objective without data.
IMAGES = "data: digits\ntrain: {epochs: 10, batch_size: 64, evaluate_every: 10}"
SEQUENCES = (
    "data: {name: temporal_order, length: 20, split: {val: 0, test: 64}}\n"
    "train: {steps: 200, batch_size: 20, epoch_steps: 200}"
)
NOTHING = "train: {steps: 1000, loss: output}"
SETTINGS = {
    **dict.fromkeys(("rnn", "gru", "lstm", "transformer"), SEQUENCES),
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


def line(speed: Speed) -> str:
    return (
        f"{speed.model:11}  {speed.parameters:10,}  {speed.lanes:5}  {speed.loop:8,.0f} /s"
        f"  {speed.loop_one_thread:8,.0f} /s  {speed.cohort:9,.0f} /s  {speed.ratio:5.1f}x  {speed.engine}"
    )


def measure(models: Sequence[str], lanes: int, rounds: int, device: str, workers: int | None) -> Iterator[Speed]:
    """Measure each model. The plain loop runs in its own process, with torch's default threads and with one thread."""
    with WorkerPool(1) as alone, WorkerPool(workers) as pool:
        device = alone.call("clipbench.commands.devices:choose", device)
        if device != "cpu" and not workers:
            pool.size = 1
        for model in models:
            plan = _plan(alone, model, lanes)
            chunks = plan.chunks((), pool.size, device)
            engine = _train(pool, chunks, device)[1]  # traces and warms up
            lane_steps = sum(chunk.lane_steps for chunk in chunks)
            speeds = [
                (*_loops(alone, plan, device), lane_steps / _train(pool, chunks, device)[0]) for _ in range(rounds)
            ]
            ratio = statistics.median(cohort / max(loop, one) for loop, one, cohort in speeds)
            loop, one, cohort = map(statistics.median, zip(*speeds, strict=True))
            yield Speed(model, plan.cohorts[0].parameters, len(plan.trials), loop, one, cohort, ratio, engine)


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
        setting = SETTINGS.get(model, IMAGES)
        lr = 1e-6 if setting == NOTHING else 0.05  # an objective that diverges would end early
        path.write_text(EXPERIMENT.format(model=model, setting=setting, lr=lr, seeds=max(1, lanes // ARMS)))
        plan: Plan = pool.call("clipbench.planning.build:prepare", str(path))
        return plan


def _train(pool: WorkerPool, chunks: Sequence[Chunk], device: str) -> tuple[float, str]:
    """Return the seconds, and the engine that computed the gradients."""
    start, engine = time.perf_counter(), ""
    for event in pool.train(chunks, device):
        if event.error:
            raise ClipbenchError(f"the benchmark failed: {event.error}")
        if event.records:
            engine = str(event.records.records["engine"][0])
    return time.perf_counter() - start, engine
