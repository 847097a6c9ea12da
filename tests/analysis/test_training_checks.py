"""Flags of training that has not worked, and the headline when none has."""

import math

import pandas as pd
import pytest

from clipbench.analysis import training_checks
from clipbench.analysis.compare import compare
from clipbench.analysis.report_model import Metric, ReportOptions
from clipbench.analysis.training_checks import NOT_ABOVE_CONSTANT, STILL_FALLING, UNDERFITS
from clipbench.reporting import answer, headline
from clipbench.stats import Estimate

ACCURACY, ERROR = Metric("test/accuracy", True, None), Metric("test/mse", False, None)
CONSTANTS = {"f": {"test/accuracy": 0.6, "train/accuracy": 0.6, "test/mse": 2.0, "train/mse": 2.0}}


def flags(value, metric=ACCURACY, constants=CONSTANTS, **columns):
    frame = pd.DataFrame({"fingerprint": ["f", "f"], **{name: [one, one] for name, one in columns.items()}})
    return training_checks.flags(frame, value, metric, ReportOptions(constants=constants))


def between(low, high):
    return Estimate((low + high) / 2, low, high, 5)


@pytest.mark.parametrize(
    ("value", "metric", "flagged"),
    [
        (between(0.61, 0.7), ACCURACY, False),
        (between(0.59, 0.7), ACCURACY, True),
        (between(0.3, 0.4), ACCURACY, True),
        (between(1.5, 1.9), ERROR, False),
        (between(1.5, 2.1), ERROR, True),
        (Estimate(0.7, math.nan, math.nan, 1), ACCURACY, False),
        (Estimate(0.6, math.nan, math.nan, 1), ACCURACY, True),
        (Estimate(math.nan, math.nan, math.nan, 0), ACCURACY, False),
    ],
)
def test_an_arm_beats_the_constant_if_its_whole_interval_does(value, metric, flagged):
    assert (NOT_ABOVE_CONSTANT in flags(value, metric)) is flagged
    assert flags(value, metric, constants={}) == (), "where the constant is not known nothing is said"


def test_training_values_near_the_constant_are_no_fit():
    good = between(0.7, 0.8)
    assert UNDERFITS in flags(good, **{"train/accuracy": 0.63})
    assert UNDERFITS not in flags(good, **{"train/accuracy": 0.65})
    assert UNDERFITS in flags(between(1, 1.1), ERROR, **{"train/mse": 1.9})
    assert UNDERFITS not in flags(between(1, 1.1), ERROR, **{"train/mse": 1.7})


def test_a_loss_that_falls_until_the_end_has_not_settled():
    assert STILL_FALLING in flags(between(0.7, 0.8), **{"train/late_fall": 0.1})
    assert flags(between(0.7, 0.8), **{"train/late_fall": 0.01}) == ()


def study(none, norm, constant, status="finished"):
    rows = [
        {
            "id": f"{arm}{seed}", "status": status, "arm": arm, "strategy": arm.split("@")[0], "seed": seed,
            "threshold": None if arm == "none" else 1.0, "data": "csv", "model": "mlp", "optimizer": "sgd",
            "fingerprint": "f", "test/accuracy": value + 0.001 * seed, "val/accuracy": value, "train/late_fall": 0.2,
        }
        for arm, value in (("none", none), ("norm@1.0", norm))
        for seed in range(8)
    ]  # fmt: skip
    options = ReportOptions(constants={"f": {"test/accuracy": constant}})
    (setting,) = compare(pd.DataFrame(rows), options).settings
    return setting


def test_where_no_arm_beats_the_constant_the_headline_says_so_first():
    setting = study(0.5, 0.55, constant=0.6)
    said = headline.sentence(setting)
    assert said.startswith("On csv with mlp/sgd, no arm is shown to be better than a constant prediction")
    assert "(test/accuracy 60.00 %)" in said and "too few epochs (the loss still falls)" in said
    found = answer.answer(setting)
    assert found.verdict == answer.NOT_LEARNT and found.arm == ""


def test_where_every_trial_diverged_the_headline_says_so():
    setting = study(0.5, 0.55, constant=0.6, status="diverged")
    said = headline.sentence(setting)
    assert said.startswith(
        "On csv with mlp/sgd, every trial diverged (16 trials), so that there is nothing to compare."
    )
    assert answer.answer(setting).verdict == answer.ALL_DIVERGED


def test_where_one_arm_beats_it_only_the_others_are_flagged():
    setting = study(0.5, 0.7, constant=0.6)
    assert {row.arm: NOT_ABOVE_CONSTANT in row.flags for row in setting.main} == {"none": True, "norm@1.0": False}
    assert headline.sentence(setting).startswith("On csv with mlp/sgd, norm@1.0 is better than none")
    same = study(0.5, 0.7, constant=math.nan)
    without = [tuple(flag for flag in row.flags if flag != NOT_ABOVE_CONSTANT) for row in setting.main]
    assert without == [row.flags for row in same.main]
