"""Without a compiler, the same trials are trained by PyTorch's kernels, with the same results and a reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipbench import engine
from clipbench.compiler.library import found
from clipbench.core.trial import Component, Trial
from clipbench.engine.gradients.workspace_cache import WorkspaceCache
from tests.engine.test_engine import ARMS, MODELS, OPTIMIZERS, training
from tests.engine.test_scope import FOUR

C = Component.of
NOISE = C("normal", scale=0.1)
PRIVATE = C("norm", **ARMS["norm"].as_dict(), scope=FOUR, noise=0.5)
CASES = {
    "rules": (["none", "norm", "value", "agc", "autoclip", "skip", "drop", "halve", "norm after momentum"], {}),
    "noise": (["none", "norm", "skip"], {"noise": NOISE}),
    "private parts": ([PRIVATE], {}),
}


@pytest.mark.parametrize("seeds", [(3,), (3, 5)], ids=["one seed", "two seeds"])
@pytest.mark.parametrize("case", CASES)
def test_results_are_the_same(case, seeds, monkeypatch):
    arms, changes = CASES[case]
    train = replace(training("mlp", "float64", 12), **changes)
    clips = [ARMS[arm] if isinstance(arm, str) else arm for arm in arms]
    trials = [Trial(*MODELS["mlp"], OPTIMIZERS["adam"], train, clip, seed) for clip in clips for seed in seeds]
    compiled = engine.train(trials)
    monkeypatch.setenv("CLIPBENCH_NATIVE", "0")
    monkeypatch.setattr(engine, "WORKSPACES", WorkspaceCache())
    found.cache_clear()
    try:
        mapped = engine.train(trials)
    finally:
        found.cache_clear()
    assert set(mapped.records["engine"]) == {"replay"}
    assert all("CLIPBENCH_NATIVE=0" in note for note in mapped.records["engine_note"])
    for name, column in compiled.steps.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(mapped.steps[name], column, rtol=1e-9, atol=1e-12, err_msg=name)
