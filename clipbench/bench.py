"""How fast this machine trains cohorts, beside the plain PyTorch loop as people run it, measured in turns."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbench.errors import ClipbenchError
from clipbench.executors.local import Local
from clipbench.plan import Chunk, Plan

MODELS = ("mlp", "cnn")
# Rules of all kinds, so that the cost of clipping and telemetry is in the figure.
EXPERIMENT = """
name: bench
data: digits
model: {model}
optimizer: {{name: sgd, lr: 0.05, momentum: 0.9}}
train: {{epochs: 10, batch_size: 64, evaluate_every: 10}}
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
HEADER = "model  parameters  lanes     plain loop         cohort     times  engine"
LOOP_SECONDS = 2.0


@dataclass(frozen=True)
class Figure:
    """One model's speed, in steps of one model per second; medians over rounds."""

    model: str
    parameters: int
    lanes: int
    loop: float
    cohort: float
    ratio: float  # median of the rounds' ratios: machines are noisy, neighbours in time alike
    engine: str


def line(figure: Figure) -> str:
    return (
        f"{figure.model:5}  {figure.parameters:10,}  {figure.lanes:5}  {figure.loop:8,.0f} steps/s"
        f"  {figure.cohort:7,.0f} steps/s  {figure.ratio:4.1f} x  {figure.engine}"
    )


def measure(models: Sequence[str], lanes: int, rounds: int, device: str, workers: int | None) -> Iterator[Figure]:
    """A figure per model. The loop runs in a process of its own, with torch's default threads."""
    with Local(1) as alone, Local(workers) as pool:
        device = alone.call("clipbench.devices:choose", device)
        if device != "cpu" and not workers:
            pool.size = 1
        for model in models:
            plan = _plan(alone, model, lanes)
            chunks = plan.chunks((), pool.size, device)
            engine = _train(pool, chunks, device)[1]  # traces and warms up
            loops, cohorts = [], []
            for _ in range(rounds):
                loops.append(alone.call("clipbench.loop:steps_per_second", plan.trials[1], LOOP_SECONDS, device))
                cohorts.append(sum(chunk.lane_steps for chunk in chunks) / _train(pool, chunks, device)[0])
            ratios = [cohort / loop for cohort, loop in zip(cohorts, loops, strict=True)]
            loop, cohort, ratio = (statistics.median(values) for values in (loops, cohorts, ratios))
            yield Figure(model, plan.cohorts[0].parameters, len(plan.trials), loop, cohort, ratio, engine)


def _plan(pool: Local, model: str, lanes: int) -> Plan:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.yaml"
        path.write_text(EXPERIMENT.format(model=model, seeds=max(1, lanes // ARMS)))
        plan: Plan = pool.call("clipbench.prepare:prepare", str(path))
        return plan


def _train(pool: Local, chunks: Sequence[Chunk], device: str) -> tuple[float, str]:
    """Seconds, and how the gradient was computed."""
    start, engine = time.perf_counter(), ""
    for event in pool.train(chunks, device):
        if event.error:
            raise ClipbenchError(f"the benchmark failed: {event.error}")
        if event.records:
            engine = str(event.records.records["engine"][0])
    return time.perf_counter() - start, engine
