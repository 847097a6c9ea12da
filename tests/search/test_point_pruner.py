"""What an adviser tells a study at the end of an epoch, and what of it decides."""

import math

from clipbench.execution.protocol import EpochReport
from clipbench.search.point_pruner import PointPruner
from tests.sweep_helpers import bowl, study

LOSS = "train/loss"


def asked_about(searched, measured, epoch=1):
    """The reports of a point of three seeds after an adviser was asked about one epoch."""
    (point,) = searched.ask(1)
    told = {trial.id: values for trial, values in zip(point.trials, measured, strict=True)}
    adviser = PointPruner([point], prunes=True)
    answers = adviser.choose_pruned([EpochReport(None, epoch, told)])
    assert answers == adviser.choose_pruned([EpochReport(None, epoch, told)])
    return searched._copy._study.trials[point.number].intermediate_values


def test_a_point_is_reported_as_the_mean_of_its_trials(tmp_path):
    searched = study(bowl(tmp_path, {"seeds": 3}))
    assert asked_about(searched, [{LOSS: 1.0}, {LOSS: 2.0}, {LOSS: 6.0}], epoch=4) == {4: 3.0}


def test_a_trial_that_diverged_counts_as_the_worst_of_the_point(tmp_path):
    searched = study(bowl(tmp_path, {"seeds": 3}))
    assert asked_about(searched, [{LOSS: 1.0}, {LOSS: math.nan}, {LOSS: 4.0}]) == {1: 3.0}


def test_an_epoch_in_which_nothing_was_measured_says_nothing(tmp_path):
    """With `evaluate_every`, every point would otherwise be as bad as the worst, and rungs would stop any of them."""
    searched = study(bowl(tmp_path, {"seeds": 3}))
    assert asked_about(searched, [{"weight_norm": 1.0}] * 3) == {}
