"""`clipbench pilot --from`: thresholds for the norms of a log, whose shares are those of a plain loop."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.cli_helpers import invoke, write

NORMS = np.exp(
    np.random.default_rng(0).normal(size=1200).cumsum() / 40 + np.random.default_rng(1).normal(size=1200) / 2
)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "norms.csv"
    pd.DataFrame({"step": np.arange(1, 1201), "grad_norm": NORMS}).to_csv(path, index=False)
    return path


def pilot(*arguments):
    said = invoke("pilot", *arguments, "--json")
    assert said.exit_code == 0, said.stderr
    return json.loads(said.stdout)


def proposed(document, setting=0):
    return {entry["strategy"]: entry for entry in document["settings"][setting]["thresholds"]}


def zclip(norms, threshold, alpha=0.97, warmup=25):
    """The rule as a plain loop."""
    fired, seen, mean, variance = [], [], 0.0, 0.0
    for norm in norms:
        deviation = max(variance**0.5, 1e-3 * mean)
        is_spike = len(seen) >= warmup and (norm - mean) / (deviation + 1e-6) > threshold
        clipped = mean + threshold**2 * deviation / ((norm - mean) / (deviation + 1e-6)) if is_spike else norm
        fired.append(is_spike)
        seen.append(clipped)
        if len(seen) <= warmup:
            mean, variance = np.mean(seen), np.var(seen)
        else:
            mean = alpha * mean + (1 - alpha) * clipped
            variance = alpha * variance + (1 - alpha) * (clipped - mean) ** 2
    return np.mean(fired)


def autoclip(norms, percent, window=1000):
    limits = [np.percentile(norms[max(0, t - window + 1) : t + 1], percent) for t in range(len(norms))]
    return (norms > np.array(limits)).mean()


def test_the_percentiles_are_those_of_the_norms(log):
    [setting] = pilot("--from", log, "--strategy", "norm")["settings"]
    assert (setting["norms"], setting["first_step"], setting["last_step"], setting["every"]) == (1200, 1, 1200, 1)
    for percent in (1, 10, 50, 90, 99, 100):
        assert setting["percentiles"]["norm, model"][str(percent)] == pytest.approx(np.percentile(NORMS, percent))


@pytest.mark.parametrize("name", ["norm", "skip", "drop"])
def test_rules_on_the_norm_clip_the_steps_above_their_threshold(log, name):
    entry = proposed(pilot("--from", log, "--strategy", name))[name]
    assert (entry["by"], entry["unit"], len(entry["thresholds"])) == ("fires", "steps", 4)
    assert entry["shares"] == [pytest.approx((threshold < NORMS).mean()) for threshold in entry["thresholds"]]


@pytest.mark.parametrize(("name", "rule"), [("zclip", zclip), ("autoclip", autoclip)])
def test_rules_that_remember_are_replayed_with_their_memory(log, name, rule):
    entry = proposed(pilot("--from", log, "--strategy", name))[name]
    assert len(entry["thresholds"]) >= 3
    assert entry["shares"] == [pytest.approx(rule(NORMS, threshold)) for threshold in entry["thresholds"]]


def test_given_thresholds_have_a_share_and_a_median_coefficient(log):
    document = pilot("--from", log, "--threshold", "2", "--threshold", "0.5", "--threshold", "1e9")
    [entry] = document["settings"][0]["thresholds"]
    assert (entry["strategy"], entry["thresholds"]) == ("norm", [0.5, 2.0, 1e9])
    assert entry["shares"] == [pytest.approx((threshold < NORMS).mean()) for threshold in (0.5, 2, 1e9)]
    assert entry["coefficients"][1] == pytest.approx(np.median(2 / NORMS[NORMS > 2]), rel=0.01)
    assert entry["coefficients"][2] is None
    said = invoke("pilot", "--from", log, "--threshold", "0.5", "--threshold", "2", "--strategy", "zclip").stdout
    assert f"zclip@2 {100 * zclip(NORMS, 2):.3g} % of steps 0." in " ".join(said.split())
    assert yaml.safe_load(said[said.index("clip:") :])["clip"][1] == {"name": "zclip", "threshold": [0.5, 2]}


def test_given_thresholds_work_for_a_training_too(tmp_path):
    path = write(tmp_path)
    document = pilot(path, "--workers", "1", "--threshold", "0.5", "--threshold", "2")
    [entry] = document["settings"][0]["thresholds"]
    assert (entry["strategy"], entry["by"]) == ("norm", "given") and entry["shares"] == sorted(entry["shares"])[::-1]


def test_the_text_can_be_pasted_and_names_what_is_left_out(log, tmp_path):
    said = invoke("pilot", "--from", log)
    assert said.exit_code == 0 and said.stderr == ""
    assert "1,200 norms, steps 1 to 1,200.\n" in said.stdout
    assert "  # Left out, because they need more than these norms: " in said.stdout
    pasted = yaml.safe_load(said.stdout[said.stdout.index("clip:") :])
    assert invoke("check", write(tmp_path, **pasted)).exit_code == 0
    names = {arm if isinstance(arm, str) else arm["name"] for arm in pasted["clip"]}
    assert {"norm", "skip", "zclip", "autoclip", "drop"} < names and not {"value", "agc", "tensor_norm"} & names
    quiet = invoke("pilot", "--from", log, "-q", "--strategy", "norm")
    assert quiet.stdout.startswith("clip:\n  - none\n  # clips ") and quiet.stderr == ""


def test_norms_of_tensors_allow_rules_on_tensors(log, tmp_path):
    frame = pd.DataFrame({"step": np.arange(1200), "g/a": NORMS, "g/b": NORMS[::-1]})
    frame.to_csv(tmp_path / "tensors.csv", index=False)
    document = pilot("--from", tmp_path / "tensors.csv", "--column", "g/*", "--tensors")
    [setting] = document["settings"]
    assert list(setting["percentiles"]) == ["norm, model", "norm, tensor", "norm, g/a", "norm, g/b"]
    entry = proposed(document)["tensor_norm"]
    both = np.concatenate([NORMS, NORMS])
    assert entry["unit"] == "tensors" and "agc" in document["left_out"]
    assert entry["shares"] == [pytest.approx((threshold < both).mean()) for threshold in entry["thresholds"]]
    two = pilot("--from", tmp_path / "tensors.csv", "--column", "g/a", "--column", "g/b", "--strategy", "norm")
    assert [each["columns"] for each in two["settings"]] == [["g/a"], ["g/b"]]


def test_what_is_odd_about_the_norms_is_said(tmp_path):
    clipped = np.minimum(NORMS, 1.5)
    clipped[[7, 9]] = np.inf
    path = tmp_path / "clipped.csv"
    pd.DataFrame({"step": np.arange(0, 12000, 10), "grad_norm": clipped}).to_csv(path, index=False)
    said = invoke("pilot", "--from", path, "--strategy", "norm")
    assert "1,198 norms, steps 0 to 11,990, besides 2 that are not finite." in said.stdout
    assert "norms look as if they were logged after clipping at about 1.5" in said.stderr
    assert "norms of about one step in 10 are logged: shares are those of the logged steps" in said.stderr
    assert len(pilot("--from", path, "--strategy", "norm")["settings"][0]["notes"]) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "expected either EXPERIMENT.yaml or --from LOG, got neither"),
        (["{log}", "--from", "{log}"], "expected either EXPERIMENT.yaml or --from LOG, got both"),
        (["--from", "{log}", "--set", "train.epochs=1"], "--set: is an option of EXPERIMENT.yaml"),
        (["--from", "{log}", "--seeds", "2"], "--seeds: is an option of EXPERIMENT.yaml"),
        (["{experiment}", "--column", "a"], "--column: is an option of --from LOG"),
        (["--from", "{log}", "--threshold", "-1"], "--threshold: expected a positive number, got -1"),
        (["--from", "{log}", "--threshold", "nan"], "--threshold: expected a positive number, got nan"),
        (["--from", "{log}", "--strategy", "nrom"], "unknown strategy 'nrom'. Did you mean `norm`?"),
        (["--from", "{log}", "--strategy", "value"], "--strategy value: needs more than the norms of the whole"),
        (["--from", "{log}", "--column", "grad"], "no column of numbers 'grad'. Did you mean `grad_norm`?"),
        (["--from", "{log}x"], "there is no such file, folder or run."),
        (["--from", "0" * 32, "--tracking-uri", "http://127.0.0.1:1"], "could not connect"),
    ],
)
def test_a_mistake_is_one_sentence(log, tmp_path, arguments, expected):
    paths = {"log": log, "experiment": write(tmp_path)}
    said = invoke("pilot", *(argument.format(**paths) for argument in arguments))
    assert said.exit_code == 2, said.stderr
    assert expected in " ".join(said.stderr.split()) and "Traceback" not in said.stderr and said.stdout == ""
