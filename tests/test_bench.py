"""The benchmark of this machine: it measures both, and the cohort wins."""

import json

import pytest

from tests.cli_helpers import invoke

FIELDS = {"model", "parameters", "lanes", "loop", "loop_one_thread", "cohort", "ratio", "engine"}


def test_bench_measures_the_cohort_beside_the_plain_loop():
    said = invoke("bench", "--model", "mlp", "--lanes", "16", "--rounds", "1", "--json")
    assert said.exit_code == 0, said.stderr
    (figure,) = json.loads(said.stdout)
    assert set(figure) == FIELDS
    assert (figure["model"], figure["parameters"], figure["lanes"]) == ("mlp", 64 * 128 + 128 + 128 * 10 + 10, 16)
    assert figure["loop"] > 0 and figure["cohort"] > 0
    assert figure["ratio"] == pytest.approx(figure["cohort"] / max(figure["loop"], figure["loop_one_thread"]))


def test_a_model_that_is_unknown_is_a_wrong_input():
    said = invoke("bench", "--model", "transfromer", "--lanes", "8", "--rounds", "1")
    assert said.exit_code == 2 and "transfromer" in said.stderr and "Traceback" not in said.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("model", "least"), [("mlp", 8.0), ("cnn", 3.0)])
def test_64_lanes_are_many_times_faster_than_the_plain_loop(model, least):
    (figure,) = json.loads(invoke("bench", "--model", model, "--lanes", "64", "--json").stdout)
    assert figure["lanes"] == 64 and figure["ratio"] >= least, figure
