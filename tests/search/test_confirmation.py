"""What a search of pure noise comes to, and one of a real effect: simulated sweeps from the first point to the verdict."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from clipbench import stats
from tests.reporting.test_report import GOOD, verdicts
from tests.simulated_sweeps import NOISE, planned, simulated, threshold_of
from tests.stats.test_power import theory

NORM = {"name": "norm", "threshold": {"log": [0.01, 100.0], "points": 3}}
VALUE = {"name": "value", "threshold": {"log": [0.001, 10.0], "points": 3}}
CHANCE = 0.001  # that a right count fails a test


def called_good(report):
    return bool(set(verdicts(report.settings[0]).values()) & GOOD)


def most(count, rate=stats.LEVEL):
    """So many of them and no more are found by chance."""
    return scipy_stats.binom.ppf(1 - CHANCE, count, rate)


def of_noise(folder, count, **sweep):
    """How many of these sweeps call an arm better: on fresh seeds, and on those of the search."""
    plan, search = planned(folder, ["none", NORM, VALUE], **sweep)
    sweeps = [simulated(plan, search, number) for number in range(count)]
    return sum(called_good(sweep.run()) for sweep in sweeps), sum(
        called_good(each.on_search_seeds()) for each in sweeps
    )


def hill(height):
    """What an arm gains over thresholds, in standard deviations of a paired difference."""
    return lambda threshold: height * np.exp(-(np.log10(threshold) ** 2) / 2)


def of_effect(folder, count, height, **sweep):
    """The share of sweeps that find the effect, and the share that theory predicts at the thresholds they found."""
    plan, search = planned(folder, ["none", NORM], **sweep)
    at = hill(height)

    def gain(trial):
        threshold = threshold_of(trial)
        return NOISE * np.sqrt(2) * at(threshold) if threshold else 0.0

    sweeps = [simulated(plan, search, number, gain) for number in range(count)]
    found = np.mean([called_good(sweep.run()) for sweep in sweeps])
    thresholds = [each.values["threshold"] for sweep in sweeps for each in sweep.finalists if each.values]
    assert len(thresholds) == count
    return found, float(np.mean([theory(at(threshold), stats.LEVEL) for threshold in thresholds]))


@pytest.mark.slow
def test_a_search_of_noise_calls_no_arm_better_than_chance_allows(tmp_path):
    fresh, searched = of_noise(tmp_path, 60, trials=24)
    assert fresh <= most(60)
    assert searched > most(60), "judged by the seeds that chose them, winners look better than they are"


def test_a_search_finds_a_real_effect_as_often_as_theory_predicts(tmp_path):
    found, expected = of_effect(tmp_path, 40, 1.3, trials=16)
    assert found == pytest.approx(expected, abs=3 * np.sqrt(expected * (1 - expected) / 40) + 0.04)
    assert expected > theory(1.0, stats.LEVEL), "what is found is near the best"


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "qmc"])
def test_hundreds_of_searches_of_noise_call_an_arm_better_at_most_at_the_nominal_rate(tmp_path, sampler):
    count = 300
    fresh, searched = of_noise(tmp_path, count, trials=40, sampler=sampler)
    print(
        f"{sampler}: called better on fresh seeds {fresh / count:.1%}, on the seeds of the search {searched / count:.1%}"
    )
    assert fresh <= most(count)
    assert searched > 2 * most(count)


@pytest.mark.slow
@pytest.mark.parametrize("height", [0.8, 1.3, 1.8])
def test_hundreds_of_searches_find_an_effect_as_often_as_theory_predicts(tmp_path, height):
    count = 200
    found, expected = of_effect(tmp_path, count, height, trials=40)
    print(f"{height:g} standard deviations: found by {found:.1%}, predicted {expected:.1%}")
    assert found == pytest.approx(expected, abs=3 * np.sqrt(expected * (1 - expected) / count) + 0.04)
