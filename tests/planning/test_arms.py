"""The options that every arm takes: where its rule acts, on what, and when; their labels, ids and refusals."""

from __future__ import annotations

import pytest

from clipbench import config
from clipbench.config.resolved_yaml import resolved
from clipbench.engine.clipping import privacy
from clipbench.errors import InputError
from clipbench.planning import build

BASE = """\
data: digits
model: mlp
optimizer: {name: sgd, lr: 0.1}
seeds: 2
"""


@pytest.fixture
def load(tmp_path):
    """The experiment with these arms, each a line of YAML."""

    def loader(*arms: str):
        path = tmp_path / "arms.yaml"
        path.write_text(BASE + "clip:\n" + "".join(f"  - {arm}\n" for arm in arms))
        return config.load(path)

    return loader


def refused(load, *arms: str) -> str:
    with pytest.raises(InputError) as caught:
        load(*arms)
    return str(caught.value)


def labels(experiment) -> list[str]:
    return [arm.arm for arm in experiment.arms]


def reloaded(experiment, tmp_path):
    path = tmp_path / "again.yaml"
    path.write_text(resolved(experiment))
    return config.load(path)


ROUND_TRIPS = {
    "{name: norm, threshold: 1.0, after: momentum}": ["norm(after=momentum)@1.0"],
    "{name: norm, threshold: 1.0, after: [null, momentum]}": ["norm@1.0", "norm(after=momentum)@1.0"],
    "{name: value, threshold: 1.0, after: null}": ["value@1.0"],
    "{name: max_norm, threshold: 2.0}": ["max_norm@2.0"],
    "{name: max_norm, threshold: 2.0, warmup: 10}": ["max_norm(warmup=10)@2.0"],
    "{name: skip, threshold: 2.0, schedule: follow_lr}": ["skip(schedule=follow_lr)@2.0"],
    "{name: norm, threshold: 1.0, schedule: constant}": ["norm@1.0"],
    "{name: norm, threshold: 1.0, schedule: {name: linear, final: [0.1, 0.5]}}": [
        "norm(schedule=linear(final=0.1))@1.0",
        "norm(schedule=linear(final=0.5))@1.0",
    ],
    "{name: norm, threshold: 1.0, warmup: 5, schedule: [null, cosine, against_lr]}": [
        "norm(warmup=5)@1.0",
        "norm(warmup=5, schedule=cosine)@1.0",
        "norm(warmup=5, schedule=against_lr)@1.0",
    ],
    "{name: zclip, threshold: 2.0, warmup: 30}": ["zclip(warmup=30)@2.0"],
    "{name: norm, threshold: 1.0, scope: sample, noise: 1.0}": ["norm(scope=sample, noise=1.0)@1.0"],
    "{name: norm, threshold: 1.0, scope: sample, noise: 1, delta: 0.001}": [
        "norm(scope=sample, noise=1.0, delta=0.001)@1.0",
    ],
    "{name: value, threshold: 1.0, scope: [batch, sample, {shards: 4}]}": [
        "value@1.0",
        "value(scope=sample)@1.0",
        "value(scope=shards(4))@1.0",
    ],
    "{name: autoclip, threshold: 10, scope: {shards: 2}}": ["autoclip(scope=shards(2))@10.0"],
    "{name: norm, threshold: 1.0, scope: {shards: 1}}": ["norm@1.0"],
    "{name: sign, scope: sample}": ["sign(scope=sample)"],
    "{name: norm, groups: {'*.bias': 0.5, head: null, '*': 1}}": ["norm(groups=[*.bias: 0.5, head: null, *: 1.0])@1.0"],
    "{name: value, threshold: [1, 2], groups: [[1, null], [{match: [a, b.*], threshold: 3}]]}": [
        "value(groups=[1.0, null])@1.0",
        "value(groups=[1.0, null])@2.0",
        "value(groups=[a b.*: 3.0])@1.0",
        "value(groups=[a b.*: 3.0])@2.0",
    ],
    "{name: norm, threshold: 1, scope: sample, adapt: [null, 0.5, {quantile: 0.25, lr: 1, max: 3}]}": [
        "norm(scope=sample)@1.0",
        "norm(scope=sample, adapt=0.5)@1.0",
        "norm(scope=sample, adapt={quantile: 0.25, lr: 1, max: 3})@1.0",
    ],
    "{name: skip, threshold: 1, error_if_nonfinite: true}": ["skip(error_if_nonfinite=true)@1.0"],
    "{name: agc, threshold: 1, p: 2, per: column}": ["agc(per=column)@1.0"],
}


@pytest.mark.parametrize("arm", ROUND_TRIPS)
def test_an_arm_is_called_by_what_it_sets_and_comes_back_from_the_resolved_file(arm, load, tmp_path):
    experiment = load(arm)
    assert sorted(labels(experiment)) == sorted(ROUND_TRIPS[arm])
    again = reloaded(experiment, tmp_path)
    assert again.arms == experiment.arms and labels(again) == labels(experiment)


def test_an_option_at_its_default_makes_no_other_trial(load):
    assert load("{name: norm, threshold: 1.0}").arms == load("{name: norm, threshold: 1.0, after: null}").arms
    assert "duplicate norm@1.0" in refused(
        load, "{name: norm, threshold: 1.0}", "{name: norm, threshold: 1.0, after: null}"
    )


REFUSED = {
    "{name: norm, threshold: 1.0, after: momentun}": "Did you mean `momentum`?",
    "{name: skip, threshold: 1.0, after: momentum}": "skip accepts or rejects the whole step and has no option `after`.",
    "{name: halve, threshold: 1.0, after: momentum}": "halve acts on the weights after the step and has no option `after`.",
    "{name: norm, threshold: 1.0, warmup: -1}": "must be greater than or equal to 0, got -1.",
    "{name: norm, threshold: 1.0, schedule: folow_lr}": "Did you mean `follow_lr`?",
    "{name: norm, threshold: 1.0, schedule: {name: linear, finl: 0.1}}": "linear has no option 'finl'.",
    "{name: norm, threshold: 1.0, schedule: [cosine, cosine]}": "duplicate schedule.",
    "{name: sign, warmup: 3}": "sign has no threshold, and therefore no option `warmup`.",
    "{name: weight_clamp, threshold: 1.0, scope: sample}": "weight_clamp acts on the weights after the step",
    "{name: none, scope: sample}": "none does not clip and has no option `scope`.",
    "{name: sign, scope: sample, noise: 1.0}": "sign has no threshold, and therefore no option `noise`.",
    "{name: skip, threshold: 1.0, scope: sample, noise: 1.0}": "skip accepts or rejects the whole step",
    "{name: none, after: momentum}": "none does not clip and has no option `after`.",
}


@pytest.mark.parametrize("arm", REFUSED)
def test_what_means_nothing_is_refused(arm, load):
    assert REFUSED[arm] in refused(load, arm)


def test_a_rule_that_names_what_its_place_does_not_have_is_refused_before_training(load, tmp_path):
    (tmp_path / "own.py").write_text(
        "import clipbench\n"
        "@clipbench.strategy(per='model')\n"
        "def looks(g, n): return n, n > 0\n"
        "@clipbench.strategy(per='unit', on='weights')\n"
        "def weighs(old, w): return w, w > 0\n"
    )
    text = refused(load, "{name: './own.py:looks'}", "{name: './own.py:weighs'}")
    assert "./own.py:looks asks for g, which a strategy per model is not given." in text
    assert "./own.py:weighs asks for old, which a strategy per unit on weights is not given." in text


def test_it_is_said_where_a_threshold_follows_a_learning_rate_that_stays(load):
    [note] = load("none", "{name: norm, threshold: 1.0, schedule: follow_lr}").notes
    assert note == ("clip[1].schedule: follow_lr: the learning rate has no schedule, so the threshold stays constant.")


# What only data and models show


@pytest.fixture
def plan(tmp_path):
    """The plan of an experiment with these lines in the place of its own."""

    def planned(*lines: str):
        given = {line.split(":")[0] for line in lines}
        kept = [line for line in BASE.splitlines() if line.split(":")[0] not in given]
        path = tmp_path / "plan.yaml"
        path.write_text("\n".join([*kept, *lines]) + "\n")
        return build.prepare(str(path))

    return planned


ARMS = "clip: [none, {name: norm, threshold: 1, scope: [batch, sample, {shards: 4}]}, {name: value, threshold: 1}]"


def test_arms_of_a_scope_are_a_cohort(plan):
    cohorts = plan(ARMS, "train: {epochs: 1, batch_size: 16}").cohorts
    assert [{trial.arm for trial in cohort.trials} for cohort in cohorts] == [
        {"none", "norm@1.0", "value@1.0"},
        {"norm(scope=sample)@1.0"},
        {"norm(scope=shards(4))@1.0"},
    ]
    assert len({cohort.id for cohort in cohorts}) == 3
    batch, sample, shards = (cohort.lane_bytes for cohort in cohorts)
    assert batch < shards < sample


def test_a_cohort_of_whole_batches_is_what_it_was_without_the_others(plan):
    alone = plan("clip: [none, {name: norm, threshold: 1}, {name: value, threshold: 1}]").cohorts
    assert alone[0].id == plan(ARMS).cohorts[0].id


UNFIT = {
    ("train: {batch_size: 3}", ARMS): "clip[1].scope: batches of 3 examples cannot be split into 4 shards.",
    ("data: none", "model: './own.py:Bowl'", "train: {loss: output, steps: 3}", ARMS): (
        "clip[1].scope: scope requires data."
    ),
    ("model: './own.py:normed'", ARMS): "./own.py:normed cannot be trained on one example at a time: ValueError",
    ("model: './own.py:frozen'", "clip: {name: norm, threshold: 1, exclude: ['1']}"): (
        "exclude matches every trained parameter of ./own.py:frozen: 1.weight, 1.bias."
    ),
}


@pytest.mark.parametrize("lines", UNFIT)
def test_arms_that_a_model_or_its_data_cannot_bear_are_refused(lines, plan, tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def normed(inputs, outputs): return nn.Sequential(nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.Linear(8, outputs))\n"
        "def frozen(inputs, outputs):\n"
        "    return nn.Sequential(nn.Linear(inputs, 8).requires_grad_(False), nn.Linear(8, outputs))\n"
        "class Bowl(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.x = nn.Parameter(torch.ones(2))\n"
        "    def forward(self): return (self.x**2).sum()\n"
    )
    with pytest.raises(InputError) as caught:
        plan(*lines)
    assert UNFIT[lines] in str(caught.value)


def test_it_is_said_where_noise_gives_no_epsilon(plan, monkeypatch):
    arms = "clip: [{name: norm, threshold: 1, scope: sample, noise: 1}, {name: value, threshold: 1, scope: sample, noise: 1}]"
    [unbounded] = plan(arms, "report: {baseline: norm}").notes
    assert unbounded.startswith("clip[1].noise: epsilon is not computed: value(scope=sample, noise=1.0) does not bound")
    monkeypatch.setattr(privacy.importlib.util, "find_spec", lambda name: None)
    missing, _ = plan(arms, "report: {baseline: norm}").notes
    assert missing == "clip[0].noise: epsilon is not computed without Opacus. Run `pip install 'clipbench[privacy]'`."
