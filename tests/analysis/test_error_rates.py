"""How often verdicts and claims are wrong in simulated studies: at most at their nominal rates, whatever the noise."""

import json
from collections import Counter

import numpy as np
import pytest
from scipy import integrate
from scipy import stats as scipy_stats

from clipbench.planning.build import prepare
from clipbench.store.folder import Store
from tests.analysis.simulated_studies import DESIGNS, RATES, Design, Study, answered, finding, records
from tests.cli_helpers import invoke, write
from tests.reporting.test_report import GOOD

LEVEL = 0.05
MARGIN = 2.0  # in units of a trial's noise


def designs(few):
    """A few studies of all designs together; slowly, many of each."""
    many = (pytest.param((name,), 4000, marks=pytest.mark.slow, id=name) for name in DESIGNS)
    return pytest.mark.parametrize(("names", "draws"), [(tuple(DESIGNS), few), *many])


# Claims about arms that are equal, so that each answer that is given is wrong.
EQUAL = (
    "norm[lr=0.1] > none[lr=0.1]",
    "norm[lr=0.1] = none[lr=0.1]",
    "norm > none",
    "norm = none",
    "value = none",
    "norm = value",
    "(norm - none)[lr=0.2] > (norm - none)[lr=0.1]",
    "(norm - none)[lr=0.2] = (norm - none)[lr=0.1]",
    "(norm - value)[lr=0.2] = (value - none)[lr=0.1]",
)
# Claims of which the difference lies at the end of the margin, so that `supported` is wrong.
LOWER = ("norm[lr=0.1] = none[lr=0.1]", "norm = none", "value = none", "always(value = none)")
LOWER_IN_ONE = ("(norm - none)[lr=0.1] = (norm - none)[lr=0.2]", "(none - norm)[lr=0.1] = (none - value)[lr=0.2]")
HIGHER = ("norm[lr=0.1] > none[lr=0.1]", "norm > none", "value > none", "none < norm", "always(value > none)")


def studies(names, draws, gain=None):
    """Yield the design and the two settings, by learning rate, of each study.

    `gain` is that of a strategy at a learning rate, in units; with it, the report has a margin.
    """
    rng = np.random.default_rng(list(names[0].encode()))
    for number in range(draws):
        design = DESIGNS[names[number % len(names)]]
        margin = MARGIN * design.unit if gain else None
        yield (
            design,
            {rate: Study(rng, design, lambda s, rate=rate: gain(s, rate) if gain else 0.0, margin) for rate in RATES},
        )


def check(wrong, draws):
    """No share is above the nominal level by more than chance: three standard errors, or two draws."""
    print({what: f"{count / draws:.4f}" for what, count in wrong.items()})
    most = max(LEVEL * draws + 3 * np.sqrt(LEVEL * (1 - LEVEL) * draws), 2)
    assert {what: count for what, count in wrong.items() if count > most} == {}


@designs(200)
def test_equal_arms_are_told_apart_at_most_at_the_nominal_rate(names, draws):
    wrong = Counter()
    for design, settings in studies(names, draws):
        words = settings["0.1"].verdicts.values()
        wrong["better"] += not GOOD.isdisjoint(words)
        wrong["worse"] += "worse" in words
        for claim in EQUAL:
            wrong[claim] += answered(settings, design, claim) in ("supported", "refuted")
        wrong["= within a margin"] += answered(settings, design, "norm = none", 0.01 * design.unit) == "refuted"
        wrong["always"] += answered(settings, design, "always(value > none)") == "supported"
    check(wrong, draws)


@designs(60)
@pytest.mark.parametrize("side", [-1, 1])
def test_a_difference_as_large_as_the_margin_is_called_none_at_most_at_the_nominal_rate(names, draws, side):
    wrong, claims = Counter(), (*LOWER, *HIGHER) if side > 0 else LOWER
    for design, settings in studies(names, draws, lambda strategy, _: side * MARGIN * (strategy != "none")):
        words = settings["0.1"].verdicts
        wrong.update(f"{strategy} no effect" for strategy in ("norm", "value") if words.get(strategy) == "no effect")
        margin = MARGIN * design.unit
        wrong.update(claim for claim in claims if answered(settings, design, claim, margin) == "supported")
    check(wrong, draws)


@designs(60)
def test_a_difference_of_differences_as_large_as_the_margin_is_called_none_as_seldom(names, draws):
    wrong = Counter()
    for design, settings in studies(names, draws, lambda s, rate: MARGIN * (s == "norm" and rate == "0.1")):
        margin = MARGIN * design.unit
        wrong.update(claim for claim in LOWER_IN_ONE if answered(settings, design, claim, margin) == "supported")
    check(wrong, draws)


@pytest.mark.parametrize("draws", [50, pytest.param(4000, marks=pytest.mark.slow)])
def test_strategies_as_good_as_the_best_are_called_worse_than_it_at_most_at_the_nominal_rate(draws):
    """Four strategies gain the same, one of them at the best of six thresholds."""
    design, wrong, rng = Design(thresholds=6, others=3), Counter(), np.random.default_rng(4)
    for _ in range(draws):
        words = set(Study(rng, design, lambda strategy: 6.0 * (strategy != "none")).verdicts.values())
        has_first = bool(words & {"best", "best on validation"})
        wrong["worse than the best"] += has_first and "better" in words
        wrong["found"] += has_first
    assert wrong.pop("found") > 0.9 * draws
    check(wrong, draws)


def power_of_t_test(dz, seeds):
    """Of the two-sided paired t test, of which only the right side is a gain."""
    critical = scipy_stats.t.ppf(1 - LEVEL / 2, seeds - 1)
    return 1 - scipy_stats.nct.cdf(critical, seeds - 1, dz * np.sqrt(seeds))


def power_of_equivalence(margin, seeds):
    """Of two one-sided t tests of equal arms; the margin is in standard deviations of the differences."""
    reach = scipy_stats.t.ppf(1 - LEVEL, seeds - 1) / np.sqrt(seeds - 1)

    def both(squares):  # the sum of squared deviations from the mean has a chi-squared distribution
        inside = max(0.0, margin * np.sqrt(seeds) - reach * np.sqrt(squares))
        return (2 * scipy_stats.norm.cdf(inside) - 1) * scipy_stats.chi2.pdf(squares, seeds - 1)

    return integrate.quad(both, 0, (margin * np.sqrt(seeds) / reach) ** 2)[0]


@pytest.mark.parametrize("draws", [100, pytest.param(4000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("seeds", [8, 12])
@pytest.mark.parametrize("dz", [0.8, 1.2])
def test_power_is_that_of_the_t_test(dz, seeds, draws):
    design, rng = Design(seeds=seeds, thresholds=1, others=0), np.random.default_rng(3)
    gain = dz * np.sqrt(2)
    better = [Study(rng, design, lambda s: gain * (s == "norm")).verdicts["norm"] in GOOD for _ in range(draws)]
    assert np.mean(better) == pytest.approx(
        power_of_t_test(dz, seeds), abs=0.05 + 1.5 / np.sqrt(draws) * (draws < 1000)
    )


@pytest.mark.parametrize("draws", [100, pytest.param(4000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("seeds", "margin"), [(3, 2.0), (8, 1.0), (12, 0.8)])
def test_power_to_show_no_effect_is_that_of_two_t_tests(seeds, margin, draws):
    design, rng = Design(seeds=seeds, thresholds=1, others=0), np.random.default_rng(3)
    found = [Study(rng, design, lambda _: 0.0, margin * np.sqrt(2)).verdicts["norm"] for _ in range(draws)]
    expected = power_of_equivalence(margin, seeds)
    assert np.mean(np.array(found) == "no effect") == pytest.approx(
        expected, abs=0.05 + 1.5 / np.sqrt(draws) * (draws < 1000)
    )


CLAIMS = (("norm[lr=0.1] > none[lr=0.1]", 0.0), ("norm[lr=0.1] = none[lr=0.1]", MARGIN))
UNTUNED = {name: design for name, design in DESIGNS.items() if design.tuned == 1}
MOMENTA = [round(0.01 * (number + 1), 2) for number in range(len(UNTUNED))]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A momentum for each design, of which two learning rates are two settings."""
    claims = [
        {"says": claim, "expect": claim.replace("lr=", f"momentum={momentum}, lr="), "margin": margin}
        for momentum in MOMENTA
        for claim, margin in CLAIMS
    ]
    thresholds = [float(threshold) for threshold in range(1, 13)]
    return write(
        tmp_path_factory.mktemp("designs"),
        data={"name": "wine"},
        optimizer={"name": "sgd", "lr": [0.1, 0.2], "momentum": MOMENTA},
        clip=["none", {"name": "norm", "threshold": thresholds}, {"name": "value", "threshold": 1.0}],
        seeds=8,
        report={"metric": "test/accuracy", "margin": MARGIN},
        claims=claims,
    )


def through_parquet(path, rng, drawn):
    """The report of the command about these studies, whose trials it finds in Parquet files."""
    results = path.parent / "results"
    found = records(rng, prepare(str(path)).trials, lambda t: drawn[t.optimizer["momentum"]][f"{t.optimizer['lr']:g}"])
    Store(results / "small").save(found, "0-0")
    result = invoke("report", path, "--results", results, "--json")
    assert result.exit_code == 0, result.stderr
    (report,) = json.loads(result.stdout)["experiments"]
    return report


@pytest.mark.parametrize("draws", [len(UNTUNED), pytest.param(4000, marks=pytest.mark.slow)])
def test_the_command_finds_the_same_in_parquet_files(experiment, draws):
    rng, wrong = np.random.default_rng(9), Counter()
    for _ in range(0, draws, len(UNTUNED)):
        drawn = {
            momentum: {rate: Study(rng, design, lambda _: 0.0, MARGIN) for rate in RATES}
            for momentum, design in zip(MOMENTA, UNTUNED.values(), strict=True)
        }
        report = through_parquet(experiment, rng, drawn)
        for setting in report["settings"]:
            expected = drawn[float(setting["axes"]["optimizer.momentum"])][setting["axes"]["lr"]].judge()
            found = {row["arm"]: row for row in setting["rows"] if row["shown"]}
            words = {name: row["verdict"] for name, row in found.items()}
            assert words == {name: word for name, (word, _) in expected.items()}
            for name, (_, contrast) in expected.items():
                for key in ("p", "p_choice", "p_holm", "p_unchosen") if contrast else ():
                    assert found[name]["contrast"][key] == pytest.approx(getattr(contrast, key), rel=1e-9)
            wrong["better"] += not GOOD.isdisjoint(words.values())
            wrong["worse"] += "worse" in words.values()
        claimed = [
            finding(drawn[momentum], design, claim, margin).p
            for momentum, design in zip(MOMENTA, UNTUNED.values(), strict=True)
            for claim, margin in CLAIMS
        ]
        assert [claim["p"] for claim in report["claims"]] == pytest.approx(claimed, rel=1e-9)
    check(wrong, 2 * draws)
