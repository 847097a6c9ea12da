"""A point's score is a finite mean over its trials, and no point is better for having diverged."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from clipbench.search.scoring import PointResult, point_result, running_score
from clipbench.search.settings import fresh_seeds
from clipbench.store.sweep_file import SearchObjective

ACCURACY, LOSS = SearchObjective("val/accuracy", higher=True), SearchObjective("val/loss", higher=False)
EPOCHS = SearchObjective("epochs_to_target", higher=False)
UNKNOWN = (math.nan,)


def row(status="finished", **measures):
    return {"id": "x", "status": status, "epochs": 20, **measures}


def accuracies(*values, status="finished"):
    return [row(status, **{"val/accuracy": value}) for value in values]


def test_a_score_is_the_mean_over_seeds():
    found = point_result(accuracies(0.9, 0.8, 0.7), [ACCURACY], UNKNOWN)
    assert found.scores == (pytest.approx(0.8),)
    assert found.deviations == (pytest.approx(0.1),)
    assert (found.lanes, found.diverged, found.epochs, found.failed) == (3, 0, 20, False)
    assert found.worst == (0.7,)


def test_a_diverged_accuracy_counts_as_nothing_learned():
    found = point_result([*accuracies(0.9, 0.8), row("diverged")], [ACCURACY], UNKNOWN)
    assert found.scores == (pytest.approx(1.7 / 3),)
    assert found.diverged_share == pytest.approx(1 / 3)
    assert found.worst == (0.8,), "what a penalty was is no measure"


def test_the_last_score_of_a_diverged_trial_is_not_kept_as_the_worst():
    rows = [*accuracies(0.9, 0.8), *accuracies(0.1, status="diverged")]
    assert point_result(rows, [ACCURACY], UNKNOWN).worst == (0.8,)


def test_a_diverged_loss_counts_as_the_worst_that_was_seen_and_as_no_better_than_before_training():
    rows = [row(**{"val/loss": 0.5}), row("diverged", **{"val/loss": 1e30})]
    assert point_result(rows, [LOSS], UNKNOWN, initial_loss=2.3).scores == (pytest.approx(1.4),)
    assert point_result(rows, [LOSS], (4.5,), initial_loss=2.3).scores == (pytest.approx(2.5),)


@given(
    some.lists(some.tuples(some.floats(allow_nan=True, allow_infinity=True, width=32), some.booleans()), min_size=1),
    some.sampled_from([ACCURACY, LOSS, EPOCHS]),
    some.floats(),
    some.floats(),
)
def test_a_score_is_finite_whatever_was_measured(trials, objective, worst, initial):
    rows = [row("diverged" if diverged else "finished", **{objective.name: value}) for value, diverged in trials]
    found = point_result(rows, [objective], [worst], initial)
    assert math.isfinite(found.scores[0]) and math.isfinite(found.deviations[0])
    assert math.isfinite(running_score([value for value, _ in trials], objective, worst))


@given(some.lists(some.floats(0, 1), min_size=2, max_size=8), some.sampled_from([ACCURACY, LOSS]), some.floats(0, 1))
def test_a_point_is_never_better_for_having_diverged(values, objective, initial):
    rows = [row(**{objective.name: value}) for value in values]
    before = point_result(rows, [objective], UNKNOWN, initial)
    diverged = point_result([*rows[:-1], row("diverged")], [objective], before.worst, initial)
    assert objective.sign * diverged.scores[0] <= objective.sign * before.scores[0] + 1e-12


def test_who_never_reached_the_target_took_one_epoch_more_without():
    assert point_result([row(epochs_to_target=4), row()], [EPOCHS], UNKNOWN).scores == (12.5,)


def test_an_outcome_is_the_same_after_writing_and_reading_it():
    found = point_result(accuracies(0.9, 0.8), [ACCURACY], UNKNOWN)
    assert PointResult.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_fresh_seeds_are_none_of_those_that_were_used():
    assert fresh_seeds({0, 1, 7}, 3) == (8, 9, 10)
    assert fresh_seeds({0, 2, 2**32 - 1}, 3) == (1, 3, 4)
