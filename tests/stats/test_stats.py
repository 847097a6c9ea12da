"""The statistics against scipy, against cases computed by hand, and for what must hold of any numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats as scipy_stats

from clipbench import stats

numbers = some.floats(-1e3, 1e3).map(lambda x: round(x, 3))
samples = some.lists(numbers, min_size=2, max_size=10).map(np.array)
p_values = some.lists(some.floats(0, 1), min_size=1, max_size=12).map(np.array)
SEEDS = range(6)


def bootstrap(values):
    (found,) = stats.bootstrap([values])
    return found


def differences(seed: int, n: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.4, 1.0, n)


@pytest.mark.parametrize("seed", SEEDS)
def test_t_interval_is_scipys(seed):
    d = differences(seed)
    expected = scipy_stats.ttest_1samp(d, 0).confidence_interval(0.95)
    estimate = stats.estimate(d)
    assert estimate.mean == pytest.approx(d.mean(), rel=1e-12)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected), rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_paired_interval_is_scipys_for_two_samples(seed):
    a, b = differences(seed), differences(seed + 100)
    expected = scipy_stats.ttest_rel(a, b).confidence_interval(0.95)
    estimate = stats.estimate(a - b)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected), rel=1e-9)


def test_interval_of_one_value_is_unknown_and_of_none_has_no_mean():
    assert np.isnan(stats.estimate([3.0]).half_width)
    assert stats.estimate([3.0]).mean == 3.0
    assert stats.estimate([np.nan]).n == 0


def test_interval_leaves_out_what_is_missing():
    assert stats.estimate([1.0, np.nan, 3.0]) == stats.estimate([1.0, 3.0])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [3, 7, 8])
def test_exact_sign_flip_test_is_scipys_permutation_test(seed, n):
    d = differences(seed, n)
    expected = scipy_stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert stats.sign_flip_p(d) == pytest.approx(expected.pvalue, abs=1e-12)


def test_sign_flip_test_of_equal_wins_by_hand():
    assert stats.sign_flip_p([1.0] * 8) == 2 / 2**8
    assert stats.sign_flip_p([1.0, 1.0, -1.0]) == 1.0  # |sum| is 1 or 3, always at least 1
    assert stats.sign_flip_p([3.0, 1.0, 1.0]) == 2 / 8


def test_sums_that_tie_but_for_rounding_tie():
    # 0.1 + 0.2 - 0.3 is 5.6e-17 and not 0; every flip of these reaches the observed sum in exact arithmetic.
    assert stats.sign_flip_p([0.1, 0.2, -0.3]) == 1.0


def test_pairs_without_a_difference_change_nothing():
    d = differences(1)
    assert stats.sign_flip_p(np.concatenate([d, np.zeros(12)])) == stats.sign_flip_p(d)
    assert stats.sign_flip_p(np.zeros(8)) == 1.0
    assert stats.sign_flip_p([]) == 1.0


def test_drawn_sign_flips_come_near_the_t_test_and_never_give_zero():
    d = differences(3, 40)
    assert stats.sign_flip_p(d) == pytest.approx(scipy_stats.ttest_1samp(d, 0).pvalue, abs=0.01)
    assert stats.sign_flip_p(np.ones(60)) == 1 / (stats.DRAWS + 1)


def test_drawn_sign_flips_repeat_and_touch_no_global_state():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    assert stats.sign_flip_p(differences(2, 20)) == stats.sign_flip_p(differences(2, 20))
    assert (np.random.get_state()[1] == before).all()


@given(samples)
def test_sign_flip_p_does_not_depend_on_order_sign_or_unit(d):
    p = stats.sign_flip_p(d)
    assert 2.0 ** (1 - d.size) <= p <= 1
    assert stats.sign_flip_p(d[::-1]) == stats.sign_flip_p(-d) == stats.sign_flip_p(d * 8) == p


def test_choice_among_one_is_the_plain_test():
    d = differences(4)
    p = stats.sign_flip_p(d)
    assert stats.sign_flip_p_after_choice(d[None], d[None]) == pytest.approx(p, abs=1e-12)


def test_choice_among_copies_is_the_plain_test():
    d = np.tile(differences(4), (5, 1))
    assert stats.sign_flip_p_after_choice(d, d) == pytest.approx(stats.sign_flip_p(d[0]), abs=1e-12)


def test_choosing_the_luckiest_of_many_is_not_rewarded():
    """Equal candidates, chosen by the very outcome that is tested: the plain test is fooled."""
    experiments = np.random.default_rng(0).normal(size=(400, 6, 8))
    luckiest = [candidates[candidates.mean(axis=1).argmax()] for candidates in experiments]
    plain = np.array([stats.sign_flip_p(d) for d in luckiest])
    after_choice = np.array([stats.sign_flip_p_after_choice(d, d) for d in experiments])
    assert (plain < 0.05).mean() > 0.1
    assert (after_choice < 0.05).mean() <= 0.05


TERRIBLE = (-20.0, 1.0), (-40.0, 10.0), (-3.0, 0.01)


def power_after_choice(others, *, reps=300, diverging=0.0, seeds=8):
    """How often a gain of 1.5 standard deviations is found where it was chosen among others: (gain, spread) each."""
    rng = np.random.default_rng(7)
    gains, spreads = np.array([(1.5, 1.0), *others]).T[:, :, None]
    found = 0
    for _ in range(reps):
        luck = np.sqrt(0.7) * rng.normal(size=(1, seeds)) + np.sqrt(0.3) * rng.normal(size=(len(gains), seeds))
        outcomes = gains + spreads * luck
        lost = rng.random(outcomes.shape) < diverging
        lost[0] = False
        outcomes[lost] = np.nan
        criteria = outcomes + 0.3 * spreads * rng.normal(size=outcomes.shape)
        ranked = [stats.worst_rank(values, np.zeros_like(lost), lost) for values in (outcomes, criteria)]
        found += stats.sign_flip_p_after_choice(*ranked) < stats.LEVEL
    return found / reps


def test_trying_what_nobody_would_choose_hardly_costs_any_power():
    """Thresholds at which nothing is learned, or that diverge on some seeds, are part of every wide grid."""
    alone = power_after_choice(())
    assert alone > 0.9
    assert power_after_choice(TERRIBLE) > alone - 0.15
    assert power_after_choice([(1.0, 1.0)], diverging=0.4) > alone - 0.15


def test_what_is_worse_makes_nothing_of_equal_candidates():
    rng = np.random.default_rng(8)
    found = 0
    for _ in range(400):
        equal = rng.normal(size=(5, 8))
        worse = np.array([[gain] for gain, _ in TERRIBLE]) + np.array([[s] for _, s in TERRIBLE]) * rng.normal(
            size=(3, 8)
        )
        found += stats.sign_flip_p_after_choice(*[np.vstack([equal, worse])] * 2) < stats.LEVEL
    assert found / 400 < stats.LEVEL


def test_divergence_outweighs_all_other_differences_together():
    ranked = stats.worst_rank([1.0, -9.0, np.nan, np.nan], [False, False, True, False], [False, False, False, True])
    assert ranked[:2].tolist() == [1.0, -9.0]
    assert ranked[2] == -ranked[3] > 10.0


def test_one_divergence_alone_shows_nothing_but_eight_do():
    nothing = np.zeros(8, bool)
    one, every = nothing.copy(), ~nothing
    one[0] = True
    assert stats.sign_flip_p(stats.worst_rank(np.zeros(8), one, nothing)) == 1.0
    assert stats.sign_flip_p(stats.worst_rank(np.full(8, np.nan), every, nothing)) == 2 / 2**8


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    assert stats.holm([]).size == 0


def test_holm_does_not_count_what_was_not_tested():
    corrected = stats.holm([0.02, np.nan, 0.5])
    assert np.isnan(corrected[1])
    assert corrected[[0, 2]].tolist() == [0.04, 0.5]


@given(p_values)
def test_holm_keeps_the_order_and_lies_between_raw_and_bonferroni(p):
    corrected = stats.holm(p)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1, p * p.size) + 1e-12).all()
    assert (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_equivalence_is_the_larger_of_scipys_one_sided_tests(seed):
    d, margin = differences(seed) / 4, 0.5
    above = scipy_stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(d, margin, alternative="less").pvalue
    assert stats.equivalence_p(d, margin, 0.0) == pytest.approx(max(above, below), rel=1e-9)


def test_equivalence_of_equal_differences_is_plain_comparison_without_a_grain():
    assert stats.equivalence_p([0.1] * 5, 0.2, 0.0) == 0.0
    assert stats.equivalence_p([0.1] * 5, 0.05, 0.0) == 1.0
    assert np.isnan(stats.equivalence_p([0.1], 0.2, 0.0))
    assert stats.equivalence_p([0.1] * 5, 0.2, np.inf) == 1.0


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_equivalence_of_counts_is_at_least_the_poisson_probability_of_so_few(lost):
    """A mean beyond the margin loses half an example per pair: 20 pairs without a loss have e^-10."""
    d = np.zeros(20)
    d[:lost] = -1 / 36
    expected = scipy_stats.poisson.cdf(lost, 0.5 * 20)
    assert stats.equivalence_p(d, 0.5 / 36, 1 / 36) == pytest.approx(max(expected, stats.equivalence_p(d, 0.5 / 36, 0)))
    assert stats.equivalence_p(np.zeros(20), 0.5 / 36, 1 / 36, 12) == pytest.approx(12 * np.exp(-10))
    assert stats.equivalence_p(-d, 0.5 / 36, 1 / 36) == stats.equivalence_p(d, 0.5 / 36, 1 / 36)


@pytest.mark.parametrize("seeds", [3, 5, 8, 16])
@pytest.mark.parametrize("accuracy", [1.0, 0.97])
def test_a_loss_of_the_margin_is_called_equal_in_one_of_twenty_draws_at_most(seeds, accuracy):
    """36 examples, each of which the arm gets wrong with a probability that is higher by the margin."""
    rng = np.random.default_rng(0)
    for margin in (0.005, 0.01, 0.03):
        base, arm = (rng.binomial(36, p, (2000, seeds)) / 36 for p in (accuracy, accuracy - margin))
        found = [stats.equivalence_p(d, margin, 1 / 36) < stats.LEVEL for d in arm - base]
        assert np.mean(found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 2000)


def test_effect_sizes_by_hand():
    assert stats.cohen_dz([1.0, 2.0, 3.0]) == pytest.approx(2.0)
    assert stats.rank_biserial([3.0, -1.0, 2.0]) == pytest.approx((3 + 2 - 1) / 6)
    assert stats.rank_biserial([1.0, -1.0, 0.0]) == 0.0


@pytest.mark.parametrize("seed", SEEDS)
def test_rank_biserial_agrees_with_scipys_signed_ranks(seed):
    d = np.round(differences(seed), 1)  # with ties
    d = d[d != 0]
    lost_or_won = scipy_stats.wilcoxon(d, alternative="greater").statistic  # the ranks won
    everything = d.size * (d.size + 1) / 2
    assert stats.rank_biserial(d) == pytest.approx(2 * lost_or_won / everything - 1)


def test_effect_size_without_spread_is_infinite_or_zero():
    assert stats.cohen_dz([0.3, 0.3, 0.3]) == np.inf
    assert stats.cohen_dz([-0.1 - 0.2, -0.3, -0.3]) == -np.inf  # equal but for rounding
    assert stats.cohen_dz([0.0, 0.0]) == 0.0
    assert np.isnan(stats.cohen_dz([1.0]))


@given(samples)
def test_effect_sizes_change_sides_with_the_arms(d):
    assert stats.cohen_dz(-d) == -stats.cohen_dz(d)
    assert stats.rank_biserial(-d) == pytest.approx(-stats.rank_biserial(d))
    assert -1 <= stats.rank_biserial(d) <= 1


@given(samples)
def test_wins_ties_and_losses_are_all_pairs(d):
    score = stats.wins_ties_losses(d)
    assert score.wins + score.ties + score.losses == d.size
    assert stats.wins_ties_losses(-d) == stats.WinTieLoss(score.losses, score.ties, score.wins)


def test_five_seeds_can_never_reach_significance_and_six_can():
    assert stats.smallest_p(5) == 0.0625
    assert stats.smallest_p(6) == 0.03125
    assert stats.seeds_needed() == 6
    assert stats.smallest_p(400) == 2 / (stats.DRAWS + 1)  # signs are drawn, not enumerated


# Seeds, and the most comparisons that so many seeds can carry: from the exact binomial tail.
@pytest.mark.parametrize(("seeds", "comparisons"), [(6, 1), (7, 3), (8, 6), (9, 12), (10, 25)])
def test_seeds_carry_so_many_comparisons(seeds, comparisons):
    assert stats.seeds_needed(comparisons) == seeds
    assert stats.seeds_needed(comparisons + 1) == seeds + 1


@settings(max_examples=20)
@given(some.integers(2, 12), some.integers(1, 6))
def test_smallest_p_is_reached_when_every_seed_wins(seeds, comparisons):
    p = stats.holm([stats.sign_flip_p(np.ones(seeds))] + [1.0] * (comparisons - 1))
    assert p[0] == pytest.approx(stats.smallest_p(seeds, comparisons))


# Bootstrap, ranks, counts and times


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [4, 8, 15])
def test_bca_interval_is_scipys_with_the_same_draws(seed, n):
    d = np.exp(differences(seed, n))
    expected = scipy_stats.bootstrap((d,), np.mean, method="BCa", rng=np.random.default_rng(0)).confidence_interval
    found = bootstrap(d)
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-9)
    assert found.mean == pytest.approx(d.mean())


def test_bca_interval_does_not_depend_on_what_else_is_resampled():
    many = [differences(seed, n) for seed in range(40) for n in (8, 5, 8)]
    assert stats.bootstrap(many) == [bootstrap(values) for values in many]


def test_bca_falls_back_to_t_where_there_is_nothing_to_resample():
    assert bootstrap([0.5] * 8) == stats.estimate([0.5] * 8)
    assert bootstrap([0.5, 0.6]) == stats.estimate([0.5, 0.6])
    assert bootstrap([]).n == 0


def test_bootstrap_is_reproducible_and_touches_no_global_state():
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    assert bootstrap(differences(1)) == bootstrap(differences(1))
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [5, 8, 12])
def test_exact_wilcoxon_is_scipys(seed, n):
    d = differences(seed, n)
    assert stats.wilcoxon_p(d) == pytest.approx(scipy_stats.wilcoxon(d, method="exact").pvalue, abs=1e-12)


def test_wilcoxon_of_five_wins_can_never_reach_the_level():
    assert stats.wilcoxon_p([1, 2, 3, 4, 5]) == 0.0625
    assert stats.wilcoxon_p([0.0, 0.0]) == 1.0


@pytest.mark.parametrize(
    "table", [(0, 8, 8, 8), (1, 8, 0, 8), (3, 8, 7, 8), (0, 5, 0, 9), (2, 4, 10, 40), (8, 8, 8, 8)]
)
def test_fisher_is_scipys(table):
    hits, trials, other, others = table
    expected = scipy_stats.fisher_exact([[hits, trials - hits], [other, others - other]]).pvalue
    assert stats.fisher_p(*table) == pytest.approx(expected, abs=1e-12)


@given(some.integers(0, 12), some.integers(0, 12), some.integers(0, 12), some.integers(0, 12))
def test_fisher_is_scipys_for_any_counts(a, b, c, d):
    expected = scipy_stats.fisher_exact([[a, b], [c, d]]).pvalue if a + b and c + d else 1.0
    assert stats.fisher_p(a, a + b, c, c + d) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_log_rank_is_scipys_with_censored_times(seed):
    rng = np.random.default_rng(seed)
    mine, other = (np.where(t > 20, np.nan, t) for t in (rng.integers(1, 30, 9), rng.integers(5, 30, 8)))
    censored = [
        scipy_stats.CensoredData(uncensored=t[~np.isnan(t)], right=np.full(np.isnan(t).sum(), 20.0))
        for t in (mine, other)
    ]
    expected = scipy_stats.logrank(*censored).pvalue
    assert stats.log_rank_p(mine, other, 20) == pytest.approx(expected, abs=1e-9)


def test_log_rank_of_targets_that_nobody_reached_says_nothing():
    assert stats.log_rank_p([np.nan] * 4, [np.nan] * 4, 20) == 1.0


def test_restricted_mean_counts_those_that_never_got_there():
    assert stats.restricted_mean([2.0, np.nan, 10.0], 20) == pytest.approx((2 + 20 + 10) / 3)


def test_choice_by_the_other_seeds_is_not_flattered_by_its_own():
    rng = np.random.default_rng(0)
    gain, flattered = [], []
    for _ in range(200):
        outcomes = rng.normal(size=(20, 8))
        gain.append(stats.nested(outcomes, outcomes).mean())
        flattered.append(outcomes.mean(axis=1).max())
    assert abs(np.mean(gain)) < 0.1 < 0.5 < np.mean(flattered)


def test_nested_choice_by_hand():
    outcomes = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    criteria = [[9.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    assert stats.nested(outcomes, criteria).tolist() == [4.0, 2.0, 3.0]


# Power


@pytest.mark.parametrize(("dz", "seeds"), [(0.5, 34), (0.8, 15), (1.0, 10), (1.5, 6)])
def test_seeds_for_power_are_those_of_the_tables(dz, seeds):
    """G*Power 3, matched pairs, two-sided, alpha 0.05, power 0.8; never fewer than the exact test can use."""
    assert stats.seeds_for_power(dz) == seeds


def test_seeds_for_power_bring_the_power():
    seeds = int(stats.seeds_for_power(0.9))
    rng = np.random.default_rng(0)
    shown = [scipy_stats.ttest_1samp(rng.normal(0.9, 1, seeds), 0).pvalue < 0.05 for _ in range(2000)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.04)


def test_no_number_of_seeds_shows_nothing():
    assert stats.seeds_for_power(0.0) == np.inf
    assert stats.seeds_for_power(np.inf) == 6
    assert stats.seeds_for_power(np.nan, comparisons=3) == 7


# Many data sets


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("step", [None, 0.5])
def test_friedman_is_scipys_with_and_without_ties(seed, step):
    scores = np.random.default_rng(seed).normal(size=(7, 4)) + np.arange(4) * 0.3
    if step:
        scores = np.round(scores / step) * step
    found = stats.ranking(scores)
    assert found.p == pytest.approx(scipy_stats.friedmanchisquare(*(-scores.T)).pvalue, abs=1e-12)
    assert found.means == pytest.approx(scipy_stats.rankdata(-scores, axis=1).mean(axis=0))


# Demsar 2006, table 5: q at 5 %.
@pytest.mark.parametrize(("candidates", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_difference_is_that_of_the_published_table(candidates, q):
    expected = q * np.sqrt(candidates * (candidates + 1) / (6 * 10))
    assert stats.critical_difference(candidates, 10) == pytest.approx(expected, abs=1e-3 * expected / q)


def test_candidates_that_tie_everywhere_are_not_significantly_different():
    assert stats.ranking(np.ones((5, 3))).p == 1.0
