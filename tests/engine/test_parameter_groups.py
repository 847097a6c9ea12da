"""Groups of parameters with options of their own: beside plain loops typed from the documentation alone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clipbench import config, datasets, engine
from clipbench.core.parameter_groups import group_of
from clipbench.core.records import Records
from clipbench.core.trial import Component, Training, Trial
from clipbench.errors import InputError
from clipbench.plugins import registry
from tests import oracle

C = Component.of
DATA = C("digits", limit=150, **{"split.val": 0.2, "split.test": 0.2, "split.seed": 0, "standardize": False})
MODELS = {"mlp": C("mlp", hidden=(12, 9), activation="relu"), "looped": C("tests.toys:looks_at_numbers")}
NORM = C("norm", threshold=0.3, p=2.0, per="model", exclude=())
ARMS = [C("none"), NORM, C("skip", threshold=1.2, exclude=())]
TRAIN = Training(
    epochs=3, batch_size=16, loss=C("cross_entropy"), metrics=(C("accuracy"),), dtype="float64", save_weights=True
)
BUILT_IN = {name: each for name, each in registry.catalogue("optimizer").items() if each.facts.get("elementwise")}
OWN = {"tests.toys:Lion": ["lr", "betas", "weight_decay"], "tests.toys:lion": ["lr", "betas", "weight_decay"]}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def column(records: Records, trial: Trial, name: str) -> np.ndarray:
    return records.steps[name][records.steps["id"] == trial.id]


def batches(trial: Trial, rows: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(trial.seed)
    return [b for _ in range(TRAIN.epochs) for b in torch.split(torch.randperm(rows, generator=draw), 16)]


def torch_groups(model: nn.Module, groups: list[tuple[list[str], dict]]) -> list[dict]:
    """The groups as torch takes them: a parameter is in the first group that matches, or else in the last one."""
    parts = [{"params": [], **options} for _, options in [*groups, ((), {})]]
    for name, parameter in model.named_parameters():
        matching = [n for n, (patterns, _) in enumerate(groups) if any(fnmatchcase(name, p) for p in patterns)]
        parts[min(matching, default=len(groups))]["params"].append(parameter)
    return [part for part in parts if part["params"]]


def losses(trial: Trial, optimizer: torch.optim.Optimizer, model: nn.Module, factors=None) -> list[float]:
    """A plain loop with torch's own clipping."""
    x, y = (torch.as_tensor(part) for part in datasets.load(DATA).train)
    found, rates = [], [group["lr"] for group in optimizer.param_groups]
    for step, batch in enumerate(batches(trial, len(x))):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (factors[step] if factors else 1.0)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[batch].double()), y[batch])
        loss.backward()
        found.append(loss.item())
        norm = float(torch.sqrt(sum((p.grad**2).sum() for p in model.parameters() if p.grad is not None)))
        if trial.clip.name == "norm":
            torch.nn.utils.clip_grad_norm_(model.parameters(), trial.clip["threshold"])
        if trial.clip.name != "skip" or norm <= trial.clip["threshold"]:
            optimizer.step()
    return found


def own_options(name: str) -> list[str]:
    """The options that groups take; torch has the first value of Adagrad's state for all groups alike."""
    return OWN.get(name) or [option for option in BUILT_IN[name].options if option != "initial_accumulator_value"]


def another(name: str, option: str) -> object:
    """A value of an option that is not its default."""
    default = registry.find("optimizer", name).options[option].default
    if option == "lr":
        return 0.03
    if isinstance(default, bool):
        return not default
    return tuple(0.9 * each for each in default) if isinstance(default, tuple) else 0.9 * default or 0.1


@pytest.mark.parametrize(
    ("name", "schedule"), [*itertools.product([*BUILT_IN, *OWN], ["cosine"]), ("sgd", None), ("adam", None)]
)
def test_groups_are_those_of_torch(name, schedule, assert_fastest):
    """Each option alone in a group, and several learning rates of all other parameters."""
    changed = {option: another(name, option) for option in own_options(name)}
    if name == "sgd":  # Nesterov's form is refused with dampening
        changed = {option: value for option, value in changed.items() if option != "nesterov"}
    groups = [(["hidden?.bias"], changed), (["head.*", "*.bias"], {"lr": 0.02}), (["hidden2.*"], {})]
    component = C(name, lr=0.01, groups=tuple(group_of(match, **options) for match, options in groups))
    train = replace(TRAIN, schedule=C("cosine", final=0.1, warmup=2) if schedule else None)
    rates = [0.01, 0.005]
    trials = [
        Trial(DATA, MODELS["mlp"], C(name, **{**component.as_dict(), "lr": lr}), train, arm, seed)
        for lr in rates
        for seed in (1, 2)
        for arm in ARMS
    ]
    records = engine.train(trials)
    if name != "tests.toys:Lion":
        assert_fastest(records.records["engine"], records.records["engine_note"])
    for trial in trials:
        model = oracle.initial_model(trial, datasets.load(DATA)).double()
        function = registry.find("optimizer", "tests.toys:Lion" if name in OWN else name).function
        optimizer = function(torch_groups(model, groups), lr=trial.optimizer["lr"])
        steps = len(batches(trial, len(datasets.load(DATA).train[0])))
        factors = oracle.rates(replace(train, steps=steps)) if schedule else None
        tolerance = 1e-6 if name == "nadam" else 1e-9  # of its numbers, torch keeps some in float32
        expected = losses(trial, optimizer, model, factors)
        np.testing.assert_allclose(column(records, trial, "train/loss"), expected, rtol=tolerance)
        weights = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()
        np.testing.assert_allclose(records.weights[trial.id], weights, rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["sgd", "tests.toys:Downhill"])
def test_the_update_of_each_parameter_is_divided_by_its_own_learning_rate(name):
    """Plain descent clipped after its step is plain descent clipped before, whatever the rates of the groups."""
    groups = (group_of(["head"], lr=0.4), group_of(["*.bias"], lr=0.05))
    after = C("norm", **NORM.as_dict(), after="momentum")
    found = [
        engine.train([Trial(DATA, MODELS["mlp"], C(name, lr=0.1, groups=groups), TRAIN, arm, 1)])
        for arm in (NORM, after)
    ]
    np.testing.assert_allclose(found[0].steps["train/loss"], found[1].steps["train/loss"], rtol=1e-9)
    assert found[0].steps["clip/fired"].any()


def test_looped_models_have_groups_too():
    groups = [(["*.bias"], {"momentum": 0.0, "lr": 0.3})]
    component = C("sgd", lr=0.1, momentum=0.9, groups=(group_of(["*.bias"], momentum=0.0, lr=0.3),))
    trial = Trial(DATA, MODELS["looped"], component, TRAIN, NORM, 2)
    records = engine.train([trial])
    assert set(records.records["engine"]) == {"looped"}
    model = oracle.initial_model(trial, datasets.load(DATA)).double()
    optimizer = torch.optim.SGD(torch_groups(model, groups), lr=0.1, momentum=0.9)
    np.testing.assert_allclose(column(records, trial, "train/loss"), losses(trial, optimizer, model), rtol=1e-9)


OWN_FILE = """
import torch

def wrapped(params, lr, **options):
    return torch.optim.AdamW(params, lr=lr, **options)

def fixed(params, lr, strength=0.1):
    return torch.optim.AdamW(params, lr=lr, weight_decay=strength)

def by_name(named, lr):
    return torch.optim.SGD([parameter for _, parameter in named], lr=lr)
"""


@pytest.fixture
def load(tmp_path):
    def loader(optimizer: str):
        (tmp_path / "own.py").write_text(OWN_FILE)
        sections = f"data: digits\nmodel: mlp\noptimizer: {optimizer}\nclip: [none]\n"
        (tmp_path / "study.yaml").write_text(sections)
        return config.load(tmp_path / "study.yaml")

    return loader


@pytest.mark.parametrize("name", ["wrapped", "fixed"])
def test_functions_of_the_users_own_get_groups_as_torch_takes_them(name, load):
    groups = "[{match: ['*.bias'], weight_decay: 0.0}, {match: head, lr: 0.05, eps: 0.001}]"
    [component] = load(f"{{name: './own.py:{name}', lr: 0.01, groups: {groups}}}").optimizers
    trial = Trial(DATA, MODELS["mlp"], component, TRAIN, NORM, 1)
    records = engine.train([trial])
    model = oracle.initial_model(trial, datasets.load(DATA)).double()
    parts = torch_groups(model, [(["*.bias"], {"weight_decay": 0.0}), (["head.*"], {"lr": 0.05, "eps": 0.001})])
    optimizer = torch.optim.AdamW(parts, lr=0.01, weight_decay=0.1 if name == "fixed" else 0.01)
    np.testing.assert_allclose(column(records, trial, "train/loss"), losses(trial, optimizer, model), rtol=1e-9)


REFUSED = {
    "an option that torch does not know": (
        "{name: './own.py:wrapped', lr: 0.1, groups: [{match: head, wieght_decay: 0.1}]}",
        "groups[0].wieght_decay: a group has no option 'wieght_decay'. Did you mean `weight_decay`?",
    ),
    "an option of the function alone": (
        "{name: './own.py:fixed', lr: 0.1, groups: [{match: head, strength: 0.2}]}",
        "groups[0].strength: a group has no option 'strength'.",
    ),
    "names": (
        "{name: './own.py:by_name', lr: 0.1, groups: [{match: head, lr: 0.2}]}",
        "./own.py:by_name asks for `named` parameters and makes groups itself.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_the_optimizer_does_not_have_are_refused(case, load):
    optimizer, said = REFUSED[case]
    with pytest.raises(InputError) as caught:
        load(optimizer)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["adamw", "tests.toys:lion"])
def test_models_whose_gradients_come_and_go_have_groups_too(name):
    """A formula is called as an object of torch there, once for each trial."""
    groups = [(["*.bias"], {"weight_decay": 0.0, "lr": 0.02}), (["*"], {"betas": (0.8, 0.9)})]
    component = C(name, lr=0.01, groups=tuple(group_of(match, **options) for match, options in groups))
    trial = Trial(DATA, C("tests.toys:one_of_two_heads"), component, TRAIN, C("none"), 1)
    records = engine.train([trial])
    assert set(records.records["engine"]) == {"looped"}
    model = oracle.initial_model(trial, datasets.load(DATA)).double()
    function = registry.find("optimizer", "tests.toys:Lion" if name in OWN else name).function
    expected = losses(trial, function(torch_groups(model, groups), lr=0.01), model)
    np.testing.assert_allclose(column(records, trial, "train/loss"), expected, rtol=1e-9)


def test_groups_are_no_part_of_an_id_where_there_are_none():
    plain = Trial(None, C("quadratic"), C("sgd", lr=0.1), Training(), C("none"), 0)
    grouped = replace(plain, optimizer=C("sgd", lr=0.1, groups=(group_of(["x"], lr=0.2),)))
    assert plain.id == "501cdcfffa7dc4dd"
    assert grouped.id != plain.id
    assert grouped.columns()["optimizer.groups"] == '[{"lr": 0.2, "match": ["x"]}]'
