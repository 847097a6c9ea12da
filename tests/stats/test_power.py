"""What the report finds and what it does not fall for: simulated effects, and a table made by one lucky seed."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from clipbench import stats
from clipbench.reporting import compare, headline, notes
from tests.reporting.test_report import GOOD, row, setting, trial, verdicts

SEEDS = 8
# Simulated studies: bounds are those of their number.
studies = pytest.mark.parametrize("studies", [50, pytest.param(150, marks=pytest.mark.slow)])


def study(rng, dz, strategies=1):
    """A baseline and strategies, of which the first gains dz standard deviations of the paired differences."""
    luck = rng.normal(size=SEEDS)
    rows = [trial("none", None, seed, 0.9 + 0.01 * luck[seed]) for seed in range(SEEDS)]
    for number in range(strategies):
        gain = rng.normal(size=SEEDS) + (dz if number == 0 else 0.0)
        rows += [trial(f"s{number}", 1.0, seed, 0.9 + 0.01 * luck[seed] + 0.001 * gain[seed]) for seed in range(SEEDS)]
    return rows


def found(dz, studies, strategies=1):
    rng = np.random.default_rng([int(100 * dz), strategies])
    judged = [verdicts(setting(study(rng, dz, strategies)))["s0@1.0"] for _ in range(studies)]
    return np.mean([word in GOOD for word in judged])


def theory(dz, level):
    """Power of the two-sided paired t test, of which only the right side is a gain."""
    critical = scipy_stats.t.ppf(1 - level / 2, SEEDS - 1)
    return 1 - scipy_stats.nct.cdf(critical, SEEDS - 1, dz * np.sqrt(SEEDS))


def error(expected, studies):
    """Three standard errors of a share."""
    return 3 * np.sqrt(expected * (1 - expected) / studies)


@studies
@pytest.mark.parametrize("dz", [0.5, 1.0, 1.5])
def test_effect_is_found_as_often_as_theory_predicts(dz, studies):
    """The sign-flip test of normal differences has about the power of the t test at the same level."""
    expected = theory(dz, stats.LEVEL)
    assert found(dz, studies) == pytest.approx(expected, abs=error(expected, studies) + 0.04)


@studies
def test_several_strategies_cost_the_power_that_holm_takes(studies):
    """With three strategies the first step is at a third of the level, which eight seeds barely resolve."""
    expected = theory(1.5, stats.LEVEL / 3)
    assert expected - error(expected, studies) <= found(1.5, studies, strategies=3) <= theory(1.5, stats.LEVEL)


def test_the_advised_number_of_seeds_gives_the_stated_power():
    seeds = int(stats.seeds_for_power(1.0))
    rng = np.random.default_rng(7)
    hits = [stats.sign_flip_p(rng.normal(1.0, 1.0, seeds)) < stats.LEVEL for _ in range(1000)]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.05)


# A published table: the mean of a few seeds at each of many thresholds, the largest in bold


def published(seeds, lucky_gain=0.06):
    """Seven thresholds and no clipping, all alike but for one seed of one threshold, which was lucky."""
    rng = np.random.default_rng(11)
    rows = [trial("none", None, seed, 0.80 + 0.005 * rng.normal()) for seed in range(seeds)]
    for threshold in (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0):
        for seed in range(seeds):
            lucky = lucky_gain if (threshold, seed) == (0.5, 1) else 0.0
            rows.append(trial("norm", threshold, seed, 0.80 + lucky + 0.005 * rng.normal()))
    return rows


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 8])
def test_one_lucky_seed_of_one_threshold_makes_no_best_strategy(seeds):
    """Its author would print 0.5 in bold, for its mean is the largest. So does the choice here; the verdict does not."""
    rows = published(seeds)
    only = setting(rows)
    if seeds > 1:
        means = pd.DataFrame(rows).groupby("arm")["test/accuracy"].mean()
        assert means.idxmax() == "norm@0.5" == only.main[1].arm
    assert not set(verdicts(only).values()) & GOOD
    assert "norm@0.5 beat" not in headline.sentence(only)


def test_too_few_seeds_for_any_verdict_are_said_with_the_number_that_it_takes():
    only = setting(published(3))
    assert verdicts(only)["norm@0.5"] == "underpowered"
    assert any(
        "3 seeds cannot reach p < 0.05" in note and "at least 6 seeds" in note for note in notes.of_setting(only)
    )


def test_what_the_lucky_seed_adds_is_taken_out_by_the_other_seeds():
    """The seed that made the threshold look good does not choose it for itself."""
    contrast = row(setting(published(8)), "norm@0.5").contrast
    assert contrast.nested < contrast.difference.mean / 2
    assert contrast.difference.low < 0 and contrast.p_choice > 0.05


def test_best_of_many_thresholds_is_called_better_at_most_at_the_nominal_rate():
    """Even where validation follows test exactly, as in a table that was chosen on what it shows."""
    rng = np.random.default_rng(5)
    wrong = []
    for _ in range(60):
        rows = [trial("none", None, seed, rng.normal()) for seed in range(6)]
        rows += [trial("norm", float(t), seed, rng.normal()) for t in range(1, 13) for seed in range(6)]
        wrong.append(bool(set(verdicts(compare(pd.DataFrame(rows)).settings[0]).values()) & GOOD))
    assert np.mean(wrong) <= 0.05


@pytest.mark.parametrize(
    ("candidates", "draws"), [(6, 60), *(pytest.param(n, 2000, marks=pytest.mark.slow) for n in (1, 6, 12))]
)
def test_seeds_for_power_pay_for_the_choice_among_candidates(candidates, draws):
    """One of several thresholds gains, and validation follows test exactly: the choice costs the most."""
    rng, dz, found = np.random.default_rng(6), 0.9, []
    seeds = int(stats.seeds_for_power(dz, choice=candidates))
    for _ in range(draws):
        gains = rng.normal(size=(candidates, seeds))
        gains[0] += dz
        best = gains[gains.mean(axis=1).argmax()]
        p = max(stats.sign_flip_p(best), stats.sign_flip_p_after_choice(gains, gains))
        found.append(p < 0.05 and best.mean() > 0)
    assert np.mean(found) == pytest.approx(0.8, abs=0.05 if draws > 500 else 0.15)
