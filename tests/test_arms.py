"""The options that every arm takes: where its rule acts, on what, and when; their labels, ids and refusals."""

from __future__ import annotations

import pytest

from clipbench import spec
from clipbench.errors import InputError
from clipbench.spec.resolved import resolved

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
        return spec.load(path)

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
    return spec.load(path)


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
}


@pytest.mark.parametrize("arm", ROUND_TRIPS)
def test_an_arm_is_called_by_what_it_sets_and_comes_back_from_the_resolved_file(arm, load, tmp_path):
    experiment = load(arm)
    assert sorted(labels(experiment)) == sorted(ROUND_TRIPS[arm])
    again = reloaded(experiment, tmp_path)
    assert again.arms == experiment.arms and labels(again) == labels(experiment)


def test_an_option_at_its_default_makes_no_other_trial(load):
    assert load("{name: norm, threshold: 1.0}").arms == load("{name: norm, threshold: 1.0, after: null}").arms
    assert "here twice" in refused(load, "{name: norm, threshold: 1.0}", "{name: norm, threshold: 1.0, after: null}")


REFUSED = {
    "{name: norm, threshold: 1.0, after: momentun}": "Did you mean `momentum`?",
    "{name: skip, threshold: 1.0, after: momentum}": "skip keeps or refuses the step as a whole; it has no `after`.",
    "{name: halve, threshold: 1.0, after: momentum}": "halve acts on the weights, after the step; it has no `after`.",
    "{name: norm, threshold: 1.0, warmup: -1}": "must be greater than or equal to 0, got -1.",
    "{name: norm, threshold: 1.0, schedule: folow_lr}": "Did you mean `follow_lr`?",
    "{name: norm, threshold: 1.0, schedule: {name: linear, finl: 0.1}}": "linear has no option 'finl'.",
    "{name: norm, threshold: 1.0, schedule: [cosine, cosine]}": "a schedule is here twice.",
    "{name: sign, warmup: 3}": "sign has no threshold, and so no `warmup`.",
    "{name: none, after: momentum}": "none does nothing; it has no `after`.",
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
    assert "./own.py:looks names g, and a rule per model is not given that." in text
    assert "./own.py:weighs names old, and a rule per unit on weights is not given that." in text
