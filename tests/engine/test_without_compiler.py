"""Without a compiler, the same trials are trained by PyTorch's kernels, with the same results and a reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipbench import engine
from clipbench.compiler.library import found
from clipbench.core.parameter_groups import group_of
from clipbench.core.trial import Component, Trial
from clipbench.engine.gradients.workspace_cache import WorkspaceCache
from tests.engine.test_engine import ARMS, MODELS, OPTIMIZERS, training
from tests.engine.test_scope import FOUR
from tests.engine.test_threshold_groups import GROUPS, grouped

C = Component.of
QUANTILE = C("", quantile=0.4, lr=0.5, noise=2.0, min=0.1, max=0.4)
FOLLOWS = C("norm", **ARMS["norm"].as_dict(), scope="sample", noise=0.5, adapt=QUANTILE)
IN_GROUPS = ("norm", "norm per unit p=1", "value", "agc", "autoclip", "drop", "halve", "norm after momentum")
NOISE = C("normal", scale=0.1)
PRIVATE = C("norm", **ARMS["norm"].as_dict(), scope=FOUR, noise=0.5)
CASES = {
    "rules": (["none", "norm", "value", "agc", "autoclip", "skip", "drop", "halve", "norm after momentum"], {}),
    "noise": (["none", "norm", "skip"], {"noise": NOISE}),
    "private parts": ([PRIVATE], {}),
    "threshold of a quantile": ([FOLLOWS], {}),
    "groups": ([grouped(ARMS[name], groups) for name in IN_GROUPS for groups in GROUPS.values()], {}),
}


RATES = (group_of(["*.bias"], lr=0.03, weight_decay=0.0), group_of(["head"], betas=(0.5, 0.9)))
PARTED = C("adam", **OPTIMIZERS["adam"].as_dict(), groups=RATES)  # groups of the optimizer, where arms have groups


@pytest.mark.parametrize(
    ("case", "seeds"),
    [*(pytest.param(case, (3,), id=case) for case in CASES), pytest.param("rules", (3, 5), id="rules, two seeds")],
)
def test_results_are_the_same(case, seeds, monkeypatch):
    arms, changes = CASES[case]
    optimizer = PARTED if case == "groups" else OPTIMIZERS["adam"]
    train = replace(training("mlp", "float64", 12), **changes)
    clips = [ARMS[arm] if isinstance(arm, str) else arm for arm in arms]
    trials = [Trial(*MODELS["mlp"], optimizer, train, clip, seed) for clip in clips for seed in seeds]
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
