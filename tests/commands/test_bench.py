"""The benchmark of this machine: it measures both, and the cohort wins."""

import json

import pytest

from clipbench.commands import jax_peer
from clipbench.plugins import registry
from tests.cli_helpers import invoke

FIELDS = {
    "model",
    "parameters",
    "lanes",
    "loop",
    "loop_one_thread",
    "cohort",
    "ratio",
    "engine",
    "note",
    "jax",
    "over_jax",
}


def test_bench_measures_the_cohort_beside_the_plain_loop():
    said = invoke("bench", "--model", "mlp", "--lanes", "16", "--rounds", "1", "--json")
    assert said.exit_code == 0, said.stderr
    (figure,) = json.loads(said.stdout)
    assert set(figure) == FIELDS
    assert (figure["model"], figure["parameters"], figure["lanes"]) == ("mlp", 64 * 128 + 128 + 128 * 10 + 10, 16)
    assert figure["loop"] > 0 and figure["cohort"] > 0
    assert figure["ratio"] == pytest.approx(figure["cohort"] / max(figure["loop"], figure["loop_one_thread"]))


def test_jax_is_measured_beside_them_where_it_is_installed():
    said = invoke("bench", "--model", "mlp", "--lanes", "8", "--rounds", "1", "--peers", "--json")
    if not jax_peer.is_installed():
        assert said.exit_code == 1 and "pip install jax" in said.stderr
        return
    (figure,) = json.loads(said.stdout)
    assert figure["jax"] > 0 and figure["over_jax"] == pytest.approx(figure["cohort"] / figure["jax"])


def test_a_model_that_is_unknown_is_a_wrong_input():
    said = invoke("bench", "--model", "transfromer", "--lanes", "8", "--rounds", "1")
    assert said.exit_code == 2 and "transfromer" in said.stderr and "Traceback" not in said.stderr


@pytest.mark.parametrize("model", [pytest.param(name, marks=pytest.mark.slow) for name in ("rnn", "quadratic")])
def test_sequences_and_objectives_are_measured_on_data_that_fit(model, assert_fastest):
    (figure,) = json.loads(invoke("bench", "--model", model, "--lanes", "8", "--rounds", "1", "--json").stdout)
    assert_fastest([figure["engine"]], [figure["note"]])
    assert min(figure["loop_one_thread"], figure["cohort"]) > 0


# How many times as many steps 32 trials make together as the faster plain loop does: at least so many.
TIMES = {"mlp": 6, "cnn": 3, "resnet": 3, "rnn": 4, "gru": 4, "lstm": 4}


@pytest.mark.slow
@pytest.mark.parametrize("model", registry.catalogue("model"))
def test_every_model_of_32_trials_is_faster_than_its_plain_loop(model):
    (figure,) = json.loads(invoke("bench", "--model", model, "--lanes", "32", "--json").stdout)
    assert figure["lanes"] == 32 and figure["ratio"] >= TIMES.get(model, 1), figure
