"""Training on a GPU by CUDA: run `make test-gpu` on a machine that has one."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clipbench import datasets, engine
from clipbench.core.records import Records
from clipbench.core.trial import Component, Trial
from clipbench.engine.device_steps import DeviceSteps
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.plan import Chunk
from tests import oracle
from tests.engine.test_devices import CASES, NORM, OWN, trials_of

pytestmark = pytest.mark.gpu
C = Component.of


@pytest.fixture(autouse=True)
def exact_products() -> None:
    engine.WORKSPACES.clear()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def device_steps() -> list[DeviceSteps]:
    return [steps for each in engine.WORKSPACES._cached.values() for steps in each.device_steps.values()]


def assert_same(one: Records, other: Records, tolerance: float) -> None:
    for name, values in other.steps.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(one.steps[name], values, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("name", [*CASES, *OWN])
def test_a_gpu_gives_the_numbers_of_the_cpu(name: str) -> None:
    case: dict[str, Any] = CASES.get(name, {})
    trials = [replace(t, model=OWN[name]) for t in trials_of()] if name in OWN else trials_of(**case)
    if trials[0].train.precision == "full":
        trials = [replace(trial, train=replace(trial.train, dtype="float64")) for trial in trials]
    found = engine.train(trials, "cuda")
    assert set(found.records["engine"]) == {"replay"}, set(found.records["engine_note"])
    half = trials[0].train.precision == "bf16"
    assert_same(found, engine.train(trials), 0.05 if half else 1e-6)


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet", "transformer", "rnn", "lstm"])
def test_a_gpu_gives_the_numbers_of_the_plain_loop(model: str) -> None:
    trials = trials_of(model, dtype="float64")
    records = engine.train(trials, "cuda")
    for trial in trials:
        expected = oracle.Loop(trial, datasets.load(trial.data)).train(4).column("loss")
        mine = records.steps["train/loss"][records.steps["id"] == trial.id][:4]
        np.testing.assert_allclose(mine, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["model mlp", "model cnn", "model rnn", "rules per tensor", "accumulate"])
def test_a_step_is_captured_as_a_graph(name: str) -> None:
    train = {"steps": 12} if name == "model rnn" else {"epochs": 3}
    engine.train(trials_of(**CASES[name], **train), "cuda")
    assert device_steps()
    for steps in device_steps():
        assert steps._graph is not None or steps._taken <= 3, steps.refusal


def test_many_lanes_are_faster_than_the_plain_loop() -> None:
    arms = [
        replace(NORM, options=(*NORM.without("threshold").options, ("threshold", c))) for c in np.linspace(0.1, 1, 64)
    ]
    trials = [replace(trial, seed=seed) for seed in range(8) for trial in trials_of(arms=arms)[::2]] * 2
    seconds = engine.seconds_per_lane_step(trials, "cuda", 1024)
    loop = oracle.Loop(trials[0], datasets.load(trials[0].data))
    loop.model.cuda()
    loop.data = tuple(part.cuda() for part in loop.data)
    loop.train(20)
    torch.cuda.synchronize()
    start = time.perf_counter()
    loop.train(100)
    torch.cuda.synchronize()
    each = (time.perf_counter() - start) / 100
    print(
        f"1,024 lanes: {1e6 * seconds:.2f} us a step of one lane, plain loop {1e6 * each:.0f} us: {each / seconds:.0f}x"
    )
    assert each / seconds > 20


def test_chunks_of_a_cohort_use_the_same_memory() -> None:
    taken = []
    for seed in range(0, 8, 2):
        engine.train([replace(trial, seed=seed + trial.seed) for trial in trials_of()], "cuda")
        torch.cuda.synchronize()
        taken.append(torch.cuda.memory_allocated())
    assert len(set(taken[1:])) == 1


def test_a_chunk_that_does_not_fit_gives_its_memory_back() -> None:
    huge = trials_of(arms=[NORM])
    huge = [replace(trial, model=C("mlp", hidden=(30_000, 30_000), activation="relu")) for trial in huge]
    before = torch.cuda.memory_allocated()
    with pytest.raises(torch.OutOfMemoryError):
        engine.train(huge, "cuda", lanes=256)
    engine.release_memory()
    assert torch.cuda.memory_allocated() <= before + 2**20


def card(*_: object) -> tuple[int]:
    """Return the card of the worker that is asked."""
    time.sleep(1)  # so that the other worker gets the other chunk
    return (torch.cuda.current_device(),)


def test_workers_use_different_cards() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one card")
    trials: list[Trial] = trials_of()
    chunks = [Chunk(str(n), tuple(trials[n::2]), len(trials) // 2, 4) for n in range(2)]
    with WorkerPool(2) as pool:
        found = [event.records for event in pool.train(chunks, "cuda", f"{__name__}:card") if event.records]
    assert {card for (card,) in found} == {0, 1}
