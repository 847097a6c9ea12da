"""`clipbench pilot` through real files: percentiles are those of the unclipped training, thresholds can be pasted."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import yaml

from clipbench import config
from clipbench.pilot.propose import candidates
from clipbench.plugins import registry
from tests.cli_helpers import experiment, invoke, train, write

ARMS = ["none", {"name": "norm", "threshold": 1.0}]
OWN = """
import clipbench


@clipbench.strategy(per="tensor", loose=float("inf"))
def gentle(n, threshold):
    \"\"\"Scale each tensor smoothly.

    g_t / sqrt(1 + (n_t / c)^2)
    \"\"\"
    return 1 / (1 + (n / threshold) ** 2).sqrt(), n > threshold


@clipbench.strategy(per="element")
def strange(g, threshold, extra=None):
    \"\"\"Fails.

    g
    \"\"\"
    raise RuntimeError("the cat sat on the keyboard")
"""


@pytest.fixture(scope="module")
def piloted(tmp_path_factory):
    """A small experiment, what a pilot says of it, and the training that it is about."""
    folder = tmp_path_factory.mktemp("pilot")
    path = write(folder, clip=ARMS)
    said = invoke("pilot", path, "--json", "--workers", "1")
    assert said.exit_code == 0, said.stderr
    train(path, folder / "results", "--workers", "1")
    trained = folder / "results" / "small"
    records = pd.read_parquet(trained / "records")
    steps = pd.read_parquet(trained / "steps")
    steps = steps[steps["id"].isin(records[records["arm"] == "none"]["id"])]
    return json.loads(said.stdout), steps, path


def test_percentiles_are_exactly_those_of_the_training_without_clipping(piloted):
    [setting] = piloted[0]["settings"]
    steps = piloted[1]
    assert setting["steps"] == len(steps) and setting["every"] == 1 and setting["diverged"] == {}
    norms, maxima = setting["percentiles"]["norm, model"], setting["percentiles"]["largest element"]
    for percent in (1, 10, 50, 90, 99, 100):
        assert norms[str(percent)] == pytest.approx(np.percentile(steps["grad_norm/pre"], percent), rel=1e-6)
        assert maxima[str(percent)] == pytest.approx(np.percentile(steps["grad_max/pre"], percent), rel=1e-6)
    assert norms["count"] == len(steps)
    assert setting["percentiles"]["norm, tensor"]["count"] == 4 * len(steps)


def test_a_threshold_fires_on_the_reported_share_of_steps(piloted):
    norms = piloted[1]["grad_norm/pre"]
    for name in ("norm", "skip"):
        proposed = thresholds_of(piloted[0], name)
        assert proposed["by"] == "fires" and proposed["unit"] == "steps" and len(proposed["thresholds"]) >= 2
        for threshold, share in zip(proposed["thresholds"], proposed["shares"], strict=True):
            assert share == pytest.approx((norms > threshold).mean(), abs=1e-9)
    assert thresholds_of(piloted[0], "norm")["shares"][0] == pytest.approx(0.9, abs=0.1)


def test_thresholds_of_a_rule_that_always_acts_are_by_the_norm_it_leaves(piloted):
    median = piloted[1]["grad_norm/pre"].median()
    proposed = thresholds_of(piloted[0], "normalize")
    assert proposed["by"] == "keeps"
    np.testing.assert_allclose(proposed["thresholds"], median * np.array(proposed["shares"]), rtol=0.02)


def test_every_rule_has_thresholds_or_needs_none(piloted):
    found = {entry["strategy"]: entry for entry in piloted[0]["settings"][0]["thresholds"]}
    rules = {name: rule for name, rule in registry.catalogue("strategy").items() if name != "none"}
    assert set(found) == set(rules)
    for name, rule in rules.items():
        thresholds = found[name]["thresholds"]
        assert bool(thresholds) == ("threshold" in rule.options), name
        assert thresholds == sorted(set(thresholds)) and all(0 < c < math.inf for c in thresholds)


def thresholds_of(document, name):
    return next(entry for entry in document["settings"][0]["thresholds"] if entry["strategy"] == name)


def test_proposals_can_be_pasted_into_an_experiment(piloted, tmp_path):
    pasted = yaml.safe_load(piloted[0]["settings"][0]["yaml"])
    path = write(tmp_path, **pasted)
    checked = invoke("check", path)
    assert checked.exit_code == 0, checked.stderr
    names = {arm.name for arm in config.load(path).arms}
    assert names == {"none", *(rule.name for rule in candidates((), ""))}


def test_the_printed_text_has_the_same_yaml(piloted):
    said = invoke("pilot", piloted[2], "--workers", "1", "--strategy", "norm", "--strategy", "value")
    assert said.exit_code == 0
    text = said.stdout
    assert text.startswith("digits(limit=100), mlp(hidden=[8]), sgd(lr=0.1)\n24 steps of 3 seeds, without clipping.\n")
    assert max(map(len, text.splitlines())) <= 80
    arms = yaml.safe_load(text[text.index("clip:") :])["clip"]
    assert [arm if isinstance(arm, str) else arm["name"] for arm in arms] == ["none", "norm", "value"]
    quiet = invoke("pilot", piloted[2], "--workers", "1", "--strategy", "norm", "-q")
    assert quiet.stdout.startswith("clip:\n  - none\n") and quiet.stderr == ""


def test_nothing_is_written(tmp_path):
    path = write(tmp_path, clip=ARMS)
    before = {entry.name for entry in tmp_path.iterdir()}
    assert invoke("pilot", path, "--results", tmp_path / "results", "--strategy", "norm").exit_code == 0
    assert {entry.name for entry in tmp_path.iterdir()} - {"__pycache__"} == before


def test_each_model_and_optimizer_is_a_setting_of_its_own(tmp_path):
    models = [{"name": "mlp", "hidden": [4]}, {"name": "linear"}]
    path = write(tmp_path, clip=ARMS, model=models, optimizer={"name": "sgd", "lr": [0.1, 0.2]}, seeds=2)
    document = json.loads(invoke("pilot", path, "--json", "--strategy", "norm").stdout)
    labels = [(setting["model"], setting["optimizer"]) for setting in document["settings"]]
    assert len(set(labels)) == 4 and {label[0] for label in labels} == {"mlp(hidden=[4])", "linear"}
    assert all(setting["seeds"] == [0, 1] for setting in document["settings"])
    said = invoke("pilot", path, "--strategy", "norm").stdout
    assert said.count("clip:\n") == 4


def test_divergence_without_clipping_is_a_result(tmp_path):
    path = write(tmp_path, model={"name": "linear_net", "std": 2.0}, optimizer={"name": "sgd", "lr": 1e9}, clip=ARMS)
    said = invoke("pilot", path, "--strategy", "norm")
    assert said.exit_code == 0, said.stderr
    assert "3 of 3 diverged without clipping, " in said.stdout and "the steps before are measured." in said.stdout
    document = json.loads(invoke("pilot", path, "--strategy", "norm", "--json").stdout)
    [setting] = document["settings"]
    assert set(setting["diverged"]) == {"0", "1", "2"}
    assert setting["steps"] == sum(step - 1 for step in setting["diverged"].values())
    assert all(np.isfinite(list(row.values())).all() for row in setting["percentiles"].values())


def test_a_users_rule_has_thresholds_too(tmp_path):
    path = write(tmp_path, clip=ARMS)
    (tmp_path / "own.py").write_text(OWN)
    said = invoke("pilot", path, "--strategy", "./own.py:gentle", "-q")
    assert said.exit_code == 0, said.stderr
    [_, arm] = yaml.safe_load(said.stdout)["clip"]
    assert arm["name"] == "./own.py:gentle" and len(arm["threshold"]) == 4
    assert "of tensors" in said.stdout
    strange = yaml.safe_load(invoke("pilot", path, "--strategy", "./own.py:strange", "-q").stdout)["clip"]
    assert strange[1] == "./own.py:strange" or strange[1]["name"] == "./own.py:strange"


def test_an_objective_needs_no_data(tmp_path):
    path = tmp_path / "bowl.yaml"
    (tmp_path / "bowl.py").write_text(
        "import torch\n\n\nclass Bowl(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.x = torch.nn.Parameter(torch.randn(2))\n\n"
        "    def forward(self):\n        return (self.x ** 2).sum()\n"
    )
    document = experiment(model="./bowl.py:Bowl", train={"loss": "output", "steps": 30}, clip=ARMS, data=None)
    path.write_text(yaml.safe_dump(document))
    said = invoke("pilot", path, "--strategy", "norm")
    assert said.exit_code == 0, said.stderr
    assert "90 steps of 3 seeds" in said.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--strategy", "nrom"], "--strategy nrom: unknown strategy 'nrom'. Did you mean `norm`?"),
        (["--set", "model=mpl"], "Did you mean `mlp`?"),
    ],
)
def test_invalid_input_is_reported_before_training(tmp_path, arguments, expected):
    said = invoke("pilot", write(tmp_path, clip=ARMS), *arguments)
    assert said.exit_code == 2
    assert expected in said.stderr and "Traceback" not in said.stderr and said.stdout == ""


def test_failed_trials_are_reported_at_the_end(tmp_path):
    path = write(tmp_path, model={"name": "./mine.py:net", "looped": True}, clip=ARMS, seeds=1)
    (tmp_path / "always").write_text("raise")
    said = invoke("pilot", path, "--strategy", "norm")
    assert said.exit_code == 3
    assert "the cat sat on the keyboard" in said.stderr
