"""Sixteen ways in which clipping goes wrong elsewhere, each held by a test. The list is known from libraries' issues:
what thresholds mean, norms that overflow, histories that are poisoned, steps that are skipped for ever, and so on.

Where a pitfall is one of every rule, `test_rule_properties.py` looks at all rules over all sizes of gradients; here
stands one plain case of each.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import yaml

from clipbench import config, engine
from clipbench.core.trial import Component, Training, Trial
from clipbench.errors import InputError
from clipbench.plugins import registry
from tests import toys
from tests.cli_helpers import experiment
from tests.gradients import ELEMENTS, PLACES, Engine

C = Component.of
RULES = registry.catalogue("strategy")
NORM = C("norm", threshold=1.0, p=2.0, per="model", exclude=())
OFF = C("norm", threshold=None, p=2.0, per="model", exclude=())
NAN = math.nan
MOMENTUM = C("sgd", lr=0.1, momentum=0.9)


@pytest.fixture(autouse=True)
def as_a_worker():
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


def clipped(arm: Component, *gradients: np.ndarray, dtype: str = "float32", **options: object) -> list[np.ndarray]:
    """What a rule makes of gradients one after another, in one lane of two."""
    run = Engine([arm, arm], dtype, steps=len(gradients), **options)
    return [run.step(np.stack([g, g]))[0].copy() for g in gradients]


def told(arm: Component, *gradients: np.ndarray, dtype: str = "float64") -> dict[str, np.ndarray]:
    run = Engine([arm, arm], dtype, steps=len(gradients))
    for g in gradients:
        run.step(np.stack([g, g]))
    return {name: column[:, 0] for name, column in run.told().items()}


def flat(size: float = 1.0) -> np.ndarray:
    """A gradient of that norm."""
    return np.full(ELEMENTS, size / math.sqrt(ELEMENTS))


def arm_of(name: str, **options: object) -> Component:
    defaults = {key: option.default for key, option in RULES[name].options.items()}
    place = {"per": RULES[name].facts["per"]} if RULES[name].facts["per"] in PLACES else {}
    return C(name, **defaults | place | {"exclude": ()} | options)


def arms_in(tmp_path, **clip: object) -> list[Component]:
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(experiment(clip=clip)))
    return list(config.load(path).arms)


def test_01_a_threshold_is_a_size_0_clips_all_away_and_null_or_inf_is_off(tmp_path):
    for bad in (-1.0, -0.5, NAN):
        with pytest.raises(InputError, match="threshold"):
            arms_in(tmp_path, name="norm", threshold=bad)
    for off in (None, math.inf):
        assert [arm["threshold"] for arm in arms_in(tmp_path, name="norm", threshold=off)] == [None]
    for name in ("norm", "value", "agc", "rms", "skip", "drop", "zero"):
        assert (clipped(arm_of(name, threshold=0.0), flat())[0] == 0).all(), name
    assert np.array_equal(clipped(OFF, flat(7.0), dtype="float64")[0], flat(7.0))


def test_02_a_finite_gradient_is_clipped_whatever_its_square_is():
    """torch: [1e20, 1e20] has the norm inf in float32, and is scaled to zero without a word."""
    for size in (1e20, 1e30):
        [after] = clipped(NORM, flat(size))
        assert np.linalg.norm(after) == pytest.approx(1.0, rel=1e-5)
    seen = told(NORM, flat(1e20), flat(1e-20), dtype="float32")
    np.testing.assert_allclose(seen["grad_norm/pre"], [1e20, 1e-20], rtol=1e-6)
    np.testing.assert_allclose(seen["grad_norm/post"], [1.0, 1e-20], rtol=1e-5)
    np.testing.assert_allclose(seen["clip/cosine"], 1.0, rtol=1e-6)


def test_02_what_float32_cannot_hold_counts_as_not_finite_and_not_as_clipped():
    model = C("tests.toys:slope", start=1.0, steepness=3e38)
    wide = C("tests.engine.test_pitfalls:two_slopes", steepness=3e38)  # its norm is 4.2e38
    train = Training(epochs=None, steps=2, loss=C("output"))
    trials = [Trial(None, m, C("sgd", lr=1e-38), train, NORM, 0) for m in (model, wide)]
    [one, both] = [engine.train([trial]).records for trial in trials]
    assert one["status"][0] == "finished"
    assert (both["status"][0], both["diverged_cause"][0], both["diverged_step"][0]) == ("diverged", "gradient", 1)


def two_slopes(steepness: float) -> torch.nn.Module:
    class TwoSlopes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = torch.nn.Parameter(torch.tensor([1.0, -1.0]))

        def forward(self) -> torch.Tensor:
            return steepness * self.x.sum()

    return TwoSlopes()


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.facts["init"]])
def test_03_what_is_not_finite_enters_no_history_and_locks_nothing(name):
    arm = arm_of(name, threshold=math.sqrt(math.prod(RULES[name].facts["search"])))
    after = clipped(arm, flat(), flat(NAN), flat(math.inf), *[flat()] * 5)
    assert all(np.isfinite(g).all() and (g != 0).all() for g in after[3:])


def test_03_a_new_level_is_refused_no_longer_than_patience():
    arm = arm_of("skip_sigma", threshold=2.0, warmup=4, patience=3)
    after = clipped(arm, *[flat(1 + step % 2 / 10) for step in range(6)], *[flat(10.0**k) for k in range(2, 6)])
    assert [bool(g.any()) for g in after[6:]] == [False, False, False, True]


def test_04_a_comparison_with_nan_skips_and_zeros_are_put_and_not_multiplied():
    bad = flat()
    bad[3] = NAN
    for name in ("skip", "drop", "skip_nonfinite"):
        limit = {"threshold": 1e9} if "threshold" in RULES[name].options else {}
        run = Engine([arm_of(name, **limit)] * 2, "float64", steps=3, optimizer=MOMENTUM)
        run.step(np.stack([flat(), flat()]))
        assert (run.step(np.stack([bad, bad])) == 0).all(), name
        run.step(np.stack([flat(), flat()]))
        assert np.isfinite(run.weights_now()).all(), name  # the momentum too


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.facts["init"]])
def test_05_a_rule_says_which_norms_it_stores(name):
    text = " ".join(RULES[name].doc.split())
    assert "Stores the" in text or "then stores the" in text
    assert any(words in text for words in ("before clipping", "after clipping", "even of a skipped step"))


def test_06_few_norms_equal_norms_and_zeros_limit_nothing():
    for name in (name for name, rule in RULES.items() if rule.facts["init"]):
        low, high = RULES[name].facts["search"]
        short = {key: 1 for key in ("window", "warmup") if key in RULES[name].options}
        for course in ([flat()] * 6, [flat(0.0)] * 3 + [flat()] * 3):
            after = clipped(arm_of(name, threshold=math.sqrt(low * high), **short), *course, dtype="float64")
            assert np.array_equal(after[-1], flat()), name


def test_07_the_clipped_fraction_is_of_what_a_rule_looks_at_and_n_over_c_is_what_counts():
    g = flat()
    g[:12] *= 100  # the matrix
    assert told(arm_of("tensor_norm", threshold=10.0), g)["clip/fraction"][0] == pytest.approx(12 / ELEMENTS)
    g[:] = 0.5
    g[[0, 20]] = 2.0
    assert told(arm_of("value", threshold=1.0), g)["clip/fraction"][0] == pytest.approx(2 / ELEMENTS)
    # torch's coefficient is below 1 at n = c, because of its 1e-6: that is no clipping.
    at_threshold = np.zeros(ELEMENTS)
    at_threshold[0] = 1.0
    assert told(NORM, at_threshold)["clip/fired"][0] == 0


def test_08_before_and_after_are_both_told_and_measured():
    g = np.linspace(-3, 3, ELEMENTS)
    for name in ("value", "soft_norm", "agc", "tanh", "zero"):
        arm = arm_of(name, threshold=0.5)
        [after] = clipped(arm, g, dtype="float64")
        seen = told(arm, g)
        assert seen["grad_norm/pre"][0] == pytest.approx(np.linalg.norm(g))
        assert seen["grad_norm/post"][0] == pytest.approx(np.linalg.norm(after))
        assert seen["grad_norm/post"][0] != pytest.approx(0.5)  # min(n, c) would be wrong for all of these
        assert seen["clip/fired"][0] == 1


def test_09_adam_hardly_sees_a_constant_scale_and_for_sgd_the_threshold_bounds_the_step():
    draw = np.random.default_rng(0)
    gradients = [10 * g / np.linalg.norm(g) for g in draw.standard_normal((5, ELEMENTS))]

    def moved(optimizer: Component, arm: Component) -> np.ndarray:
        run = Engine([arm] * 2, "float64", steps=5, optimizer=optimizer)
        for g in gradients:
            run.step(np.stack([g, g]))
        return run.weights_now()[0] - 1

    adam, sgd = C("adam", lr=0.1), C("sgd", lr=0.1)
    np.testing.assert_allclose(moved(adam, NORM), moved(adam, OFF), rtol=1e-5)
    assert np.linalg.norm(moved(sgd, NORM)) <= 5 * 0.1 * 1.0 < np.linalg.norm(moved(sgd, OFF))


def test_10_a_skipped_step_is_not_a_step_with_a_zero_gradient():
    decaying = C("sgd", lr=0.1, momentum=0.9, weight_decay=0.1)
    for name, moves in (("skip", False), ("drop", True)):
        run = Engine([arm_of(name, threshold=2.0)] * 2, "float64", steps=2, optimizer=decaying)
        run.step(np.stack([flat()] * 2))
        before = run.weights_now().copy()
        run.step(np.stack([flat(100.0)] * 2))
        assert bool((run.weights_now() != before).all()) == moves, name


def test_11_a_tied_parameter_is_counted_and_scaled_once():
    """torch's clip_grad_norm_ on a list that holds it twice counts it twice, and scales it twice."""
    torch.manual_seed(0)
    model = toys.tied(3, 2)
    assert len(dict(model.named_parameters())) == 5  # of three layers, with one matrix less
    data = C("tests.toys:line", examples=40, features=3)
    train = Training(epochs=None, steps=1, batch_size=None, loss=C("mse"), dtype="float64", save_weights=True)
    trial = Trial(
        data,
        C("tests.toys:tied"),
        C("tests.toys:Copies", lr=1.0),
        train,
        C("norm", threshold=1e-3, p=2.0, per="model", exclude=()),
        0,
    )
    records = engine.train([trial])
    assert np.linalg.norm(records.weights[trial.id]) == pytest.approx(1e-3, rel=1e-5)
    assert records.steps["grad_norm/post"][0] == pytest.approx(1e-3, rel=1e-5)


def test_12_agc_bounds_rows_filters_and_whole_biases_by_their_weights():
    weights = np.random.default_rng(0).standard_normal(ELEMENTS)
    weights[:4] = 0  # a row that was initialized with zeros must be able to move
    [after] = clipped(arm_of("agc", threshold=0.01), flat(1e3), dtype="float64", weights=weights)
    for start, stop in PLACES["unit"]:
        bound = 0.01 * max(np.linalg.norm(weights[start:stop]), 1e-3)
        assert np.linalg.norm(after[start:stop]) == pytest.approx(bound)
    [spared] = clipped(arm_of("agc", threshold=0.01, exclude=("bias",)), flat(1e3), dtype="float64", weights=weights)
    assert np.array_equal(spared[28:33], flat(1e3)[28:33])


def test_13_every_rule_with_a_threshold_has_a_range_of_its_own():
    ranges = {name: rule.facts["search"] for name, rule in RULES.items() if "threshold" in rule.options}
    assert all(search and 0 < search[0] < search[1] for search in ranges.values())
    assert ranges["norm"] != ranges["agc"] != ranges["autoclip"] != ranges["zclip"]


def test_14_a_spike_is_clipped_from_above_once_and_by_the_norm_and_not_its_square():
    """Elsewhere a masked in-place write did nothing, a clamp had the wrong direction, and a norm was not rooted."""
    spike = flat(0.0)
    spike[5] = 1000.0
    for name in ("norm", "tensor_norm", "value", "rms", "relative"):
        [after] = clipped(arm_of(name, threshold=0.5), spike, dtype="float64")
        assert 0 < after[5] <= 0.5 * (math.sqrt(12) if name == "rms" else 1000 if name == "relative" else 1) + 1e-12
    [small] = clipped(arm_of("rms", threshold=1.0), flat(1e-3), dtype="float64")
    assert np.array_equal(small, flat(1e-3))  # and never scaled up
    assert told(NORM, 3 * flat())["grad_norm/pre"][0] == pytest.approx(3.0)


def test_15_one_seed_shows_nothing():
    """That a threshold moves the final loss up or down is not given: seeds say how much of it is chance."""
    from clipbench import stats

    assert stats.smallest_p(1, 1) >= stats.LEVEL and stats.seeds_needed(1) > 1


def test_16_clipping_is_before_the_momentum_and_only_once_unless_asked_otherwise():
    gradients = [flat(10.0), flat(10.0)]
    moved = []
    for arm in (NORM, C("norm", threshold=1.0, p=2.0, per="model", exclude=(), after="momentum")):
        run = Engine([arm] * 2, "float64", steps=2, optimizer=MOMENTUM)
        for g in gradients:
            run.step(np.stack([g, g]))
        moved.append(np.linalg.norm(run.weights_now()[0] - 1))
    assert moved[0] == pytest.approx(0.1 * (1 + 1.9), rel=1e-5)  # the buffer of clipped gradients: 1, then 1.9
    assert moved[1] == pytest.approx(0.1 * (1 + 1), rel=1e-5)  # updates of 10 and 19, each clipped to 1
