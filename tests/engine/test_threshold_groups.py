"""Groups of parameters that a rule clips on their own, each with a threshold of its own: beside the plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipbench import datasets, engine
from clipbench.core.parameter_groups import group_of
from clipbench.core.trial import Component
from clipbench.engine.model.network import build_model
from clipbench.engine.step import COLUMNS
from clipbench.plugins import registry
from tests.engine.test_engine import ARMS, SCHEDULES, steps_of, whole
from tests.engine.test_scope import FOUR, assert_as_the_loop, trials_of

C = Component.of
RULES = registry.catalogue("strategy")


def of_patterns(**thresholds: float | None) -> tuple[Component, ...]:
    return tuple(group_of((pattern,), threshold=c) for pattern, c in thresholds.items())


# The bias of the hidden layer and the head: two parameters and one; the weight of the hidden layer matches nothing.
TWO = of_patterns(**{"hidden1.bias": 0.5, "head": 1.5})
ALL = of_patterns(**{"head.bias": 0.3, "*.bias": None, "*": 0.8})
LIST = (0.7, 1.5, 0.4, 1.2)
GROUPS = {"two": TWO, "all": ALL, "list": LIST}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def grouped(arm: Component, groups: object, **options: object) -> Component:
    return C(arm.name, **arm.as_dict() | options, groups=groups)


def can_have_groups(arm: Component) -> bool:
    plugin = RULES[arm.name]
    options = arm.as_dict()
    return "threshold" in plugin.options and options.get("threshold") is not None and plugin.facts["per"] != "step"


def arms(groups: object, **options: object) -> list[Component]:
    """Every rule that can have groups, as the tests of the engine have it."""
    chosen = [arm for arm in ARMS.values() if can_have_groups(arm) and "lower" not in arm.as_dict()]
    return [grouped(arm, groups, **options) for arm in chosen]


def test_every_rule_with_a_threshold_is_there():
    assert {arm.name for arm in arms(LIST)} == {
        name for name, rule in RULES.items() if "threshold" in rule.options and rule.facts["per"] != "step"
    }


@whole
@pytest.mark.parametrize("groups", GROUPS)
def test_every_rule_on_groups_equals_the_plain_loop(groups, whole, assert_fastest):
    """Each rule with one kind of groups, and all with all in the slow tests."""
    chosen = arms(GROUPS[groups])
    records = assert_as_the_loop(trials_of(chosen if whole else chosen[list(GROUPS).index(groups) :: 3], steps=12))
    assert_fastest(records.records["engine"], records.records["engine_note"])


@pytest.mark.parametrize("groups", ["two", pytest.param("all", marks=pytest.mark.slow), "list"])
def test_groups_follow_warmup_and_schedule(groups, assert_fastest):
    chosen = [
        arm for arm in arms(GROUPS[groups], warmup=3, schedule=C("follow_lr")) if not RULES[arm.name].facts["init"]
    ]
    moving = {"schedule": SCHEDULES["cosine"]}
    records = assert_as_the_loop(trials_of(chosen, steps=8, **moving))
    assert_fastest(records.records["engine"], records.records["engine_note"])


@whole
@pytest.mark.parametrize("scope", ["sample", FOUR], ids=["sample", "four"])
@pytest.mark.parametrize("groups", GROUPS)
def test_groups_of_parts_of_a_batch_equal_the_plain_loop(groups, scope, whole, assert_fastest):
    chosen = [
        C(arm.name, **arm.as_dict(), scope=scope)
        for arm in arms(GROUPS[groups])
        if RULES[arm.name].facts["on"] == "gradient"
        and "after" not in arm.as_dict()
        and not (scope == "sample" and RULES[arm.name].facts["init"])
    ]
    records = assert_as_the_loop(trials_of(chosen if whole else chosen[list(GROUPS).index(groups) :: 6]))
    assert_fastest(records.records["engine"], records.records["engine_note"])


@pytest.mark.parametrize("name", ["norm", "norm per tensor", "norm per unit p=1", "value", "agc", "adagc", "autoclip"])
def test_one_group_of_all_parameters_is_no_group(name):
    """Also where its threshold is a factor: 2 of 0.5 is 1."""
    arm = ARMS[name]
    half = C(arm.name, **arm.as_dict() | {"threshold": 0.5 * arm["threshold"]})
    plain, same, twice = trials_of(
        [arm, grouped(arm, of_patterns(**{"*": 1.0})), grouped(half, of_patterns(**{"*": 2.0}))]
    )
    records = engine.train([plain, same, twice])
    for trial in (same, twice):
        for column in COLUMNS:
            expected = steps_of(records, plain)[column]
            np.testing.assert_array_equal(steps_of(records, trial)[column], expected, err_msg=column)


@pytest.mark.parametrize("per", ["tensor", "unit"])
def test_tensors_of_groups_of_one_threshold_are_as_without_groups(per):
    arm = C("norm", threshold=0.2, p=2.0, per=per, exclude=())
    plain, same = trials_of([arm, grouped(arm, (1.0, 1.0, 1.0, 1.0))])
    records = engine.train([plain, same])
    for column in COLUMNS:
        expected = steps_of(records, plain)[column]
        np.testing.assert_allclose(steps_of(records, same)[column], expected, rtol=1e-9, err_msg=column)


def test_clip_grad_norm_of_each_group_is_what_it_is(assert_fastest):
    """Typed from the documentation of torch alone."""
    arm = C("norm", threshold=1.0, p=2.0, per="model", exclude=(), groups=of_patterns(**{"head": 0.05, "*": 0.1}))
    [trial] = trials_of([arm], optimizer="sgd", dtype="float64", steps=9)
    records = engine.train([trial])
    assert_fastest(records.records["engine"], records.records["engine_note"])
    x, y = (torch.as_tensor(part).double() for part in datasets.load(trial.data).train)
    torch.manual_seed(trial.seed)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
    draw, order = torch.Generator().manual_seed(trial.seed), []
    while len(order) < 9:
        order += torch.split(torch.randperm(len(x), generator=draw), trial.train.batch_size)
    losses, posts, fired = [], [], []
    for batch in order[:9]:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(net(x[batch]).reshape(y[batch].shape), y[batch])
        loss.backward()
        norms = [
            torch.nn.utils.clip_grad_norm_(net[2].parameters(), 0.05),
            torch.nn.utils.clip_grad_norm_(net[0].parameters(), 0.1),
        ]
        fired.append(float(norms[0] > 0.05 or norms[1] > 0.1))
        posts.append(float(torch.cat([p.grad.flatten() for p in net.parameters()]).norm()))
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(records.steps["train/loss"], losses, rtol=1e-9)
    np.testing.assert_allclose(records.steps["grad_norm/post"], posts, rtol=1e-9)
    np.testing.assert_array_equal(records.steps["clip/fired"], fired)


def test_looped_models_have_groups_too():
    chosen = [grouped(ARMS[name], LIST[:2]) for name in ("norm", "value", "autoclip per tensor", "max_norm")]
    setting = (C("tests.toys:line", examples=50, features=3, seed=4), C("tests.toys:looks_at_numbers"))
    count = len(list(build_model(setting[1], datasets.load(setting[0]), seed=0).parameters()))
    chosen = [C(arm.name, **arm.as_dict() | {"groups": tuple(0.5 + n for n in range(count))}) for arm in chosen]
    records = assert_as_the_loop(trials_of(chosen, setting, steps=5, batch_size=8, metrics=()))
    assert set(records.records["engine"]) == {"looped"}
