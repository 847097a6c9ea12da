"""Claims: read with their places, tested on the paired seeds, answered with no more than these show."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats as scipy_stats

from clipbench import config, stats
from clipbench.analysis.subject import subject_of
from clipbench.config.claim_language import Expectation, Side, Vocabulary, read
from clipbench.config.sections import Claim
from clipbench.config.values import InvalidValue
from clipbench.core.trial import Component
from clipbench.errors import InputError
from clipbench.planning.build import prepare
from clipbench.reporting import ReportOptions, claim_evidence, compare, figures, notes
from clipbench.reporting.formats import html, json_report, markdown, terminal
from tests.cli_helpers import write
from tests.golden_files import check_golden
from tests.reporting.test_report import arm, diverged, quickstart, trial, verdicts

ARMS = [
    Component.of("none"),
    *(Component.of("norm", threshold=t) for t in (0.5, 1.0, 10**-2.5)),
    Component.of("norm", label="norm(per=tensor)", threshold=1.0),
    Component.of("value", label="value(exclude=[b])", threshold=0.1),
    Component.of("./my.rules.py:clip", threshold=1.0),
    Component.of("zero", threshold=1.0),
]
VOCABULARY = Vocabulary.of(
    ARMS,
    {
        "data": [Component.of("digits"), None],
        "model": [Component.of("mlp")],
        "optimizer": [Component.of("sgd"), Component.of("adam")],
    },
    {"lr": ("0.1",), "train.l2": ("0", "0.001"), "model.hidden": ("[8, 8]",), "data.a.x": ("1",), "data.b.x": ("1",)},
)


# Reading


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("norm", Side("norm", "norm")),
        ("norm@1", Side("norm@1", "norm", 1.0)),
        ("norm@1.0", Side("norm@1.0", "norm", 1.0)),
        ("norm@0.00316", Side("norm@0.00316", "norm", 0.00316)),
        ("norm(per=tensor)@1", Side("norm(per=tensor)@1", "norm(per=tensor)", 1.0)),
        ("value", Side("value", "value(exclude=[b])")),
        ("./my.rules.py:clip@1", Side("./my.rules.py:clip@1", "./my.rules.py:clip", 1.0)),
        ("adam.norm@0.5", Side("adam.norm@0.5", "norm", 0.5, (("optimizer", "adam"),))),
        ("digits.adam.norm", Side("digits.adam.norm", "norm", None, (("data", "digits"), ("optimizer", "adam")))),
        ("adam", Side("adam", "", None, (("optimizer", "adam"),))),
        ("cnn.norm", Side("cnn.norm", "norm", None, (("model", "cnn"),))),
        ("none[train.l2=1e-3]", Side("none[train.l2=1e-3]", "none", options=(("train.l2", "1e-3"),))),
        ("norm@1[l2=0, lr=0.1]", Side("norm@1[l2=0, lr=0.1]", "norm", 1.0, (), (("train.l2", "0"), ("lr", "0.1")))),
        (
            "sgd.none[hidden=[8, 8]]",
            Side("sgd.none[hidden=[8, 8]]", "none", None, (("optimizer", "sgd"),), (("model.hidden", "[8, 8]"),)),
        ),
        ("parameters", Side("parameters", measure="parameters")),
    ],
)
def test_sides_name_arms_settings_and_thresholds(text, side):
    assert read(f"{text} > none", VOCABULARY).left == side
    assert read(f"none={text}", VOCABULARY).right == side


def test_difference_is_of_two_strategies_in_one_setting():
    found = read("(norm@1 - none)[l2=0.001] > (norm(per=tensor)@1 - none)[l2=0]", VOCABULARY)
    minus = Side("none", "none")
    assert found.left == Side("(norm@1 - none)[l2=0.001]", "norm", 1.0, (), (("train.l2", "0.001"),), minus)
    assert found.right.strategy == "norm(per=tensor)"
    assert found.right.options == (("train.l2", "0"),)


def test_always_wraps_a_relation():
    found = read(" always( norm(per=tensor) = none ) ", VOCABULARY)
    assert found == Expectation(Side("norm(per=tensor)", "norm(per=tensor)"), "=", Side("none", "none"), True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("norm none", "expected two sides"),
        ("norm > none > zero", "expected two sides"),
        ("norm >= none", "expected two sides"),
        ("norm > norm", "both sides name the same arms"),
        ("norm@0.1 = norm@1e-1", "both sides name the same arms"),
        ("always(norm > norm)", "both sides name the same arms"),
        ("(norm - none) > (norm - none)", "both sides name the same arms"),
        ("> none", "a side is missing"),
        ("norm >", "a side is missing"),
        ("nrom > none", "unknown 'nrom' in a claim"),
        ("adm.norm > none", "unknown 'adm.norm' in a claim"),
        ("adam.nrom > none", "unknown 'nrom' in a claim"),
        ("always(norm > none", "expected two sides"),
        ("norm@x > none", "unknown 'norm@x'"),
        ("norm[l3=1] > none", "unknown option 'l3'"),
        ("norm[x=1] > none", "'x' is ambiguous: it may be data.a.x or data.b.x"),
        ("norm[l2] > none", "expected options such as"),
        ("(norm - none) > none", "only be compared with a difference"),
        ("(norm none) > (norm - none)", "expected a difference"),
        ("(adam - none) > (norm - none)", "takes two strategies"),
        ("always((norm - none)[l2=0] > (norm - none)[l2=0.001])", "`always` does not support differences"),
        ("parameters = weight_sparsity", "both name a measure"),
    ],
)
def test_what_cannot_be_read_says_which_word(text, words):
    with pytest.raises(InvalidValue) as caught:
        read(text, VOCABULARY)
    assert words in caught.value.text
    assert caught.value.remedy


@given(st.text(alphabet="norma@1.>=<()always adam", max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        read(text, VOCABULARY)
    except InvalidValue as error:
        assert error.text


YAML = """name: claims
data: digits
model: {name: mlp, hidden: [8]}
optimizer: {name: sgd, lr: 0.1}
clip: [none, {name: norm, threshold: [0.5, 1.0]}]
claims:
  - {says: fine, expect: norm@1 > none}
"""


def load(tmp_path, *claims):
    path = tmp_path / "claims.yaml"
    path.write_text(YAML + "".join(f"  - {{says: it, expect: '{claim}'}}\n" for claim in claims), encoding="utf-8")
    return config.load(path)


def test_every_wrong_claim_is_said_with_its_line_and_column(tmp_path):
    with pytest.raises(InputError) as caught:
        load(tmp_path, "nrom > none", "norm", "norm < none")
    first, second = caught.value.problems
    assert str(first).partition("claims.yaml")[2] == (
        ":8:24: claims[1].expect: unknown 'nrom' in a claim. Did you mean `norm`?"
    )
    assert (second.place.line, second.place.key) == (9, "claims[2].expect")


def test_claim_about_a_built_in_name_that_is_not_here_is_only_remarked(tmp_path):
    experiment = load(tmp_path, "value > none", "adam.norm > none", "norm@3 > none")
    assert [note for note in experiment.notes if "cannot be tested" in note] == [
        "claims[1].expect cannot be tested: value is not in this experiment.",
        "claims[2].expect cannot be tested: adam is not in this experiment.",
        "claims[3].expect cannot be tested: norm has no threshold 3 here, only 0.5, 1.",
    ]
    assert len(experiment.expectations) == len(experiment.claims) == 4


# Testing


def answers(rows, *claims, **options):
    """Each claim is its expectation, or that with the options of the claim."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    known = frame.drop_duplicates("arm")
    arms_ = [
        Component.of("x", label=s, **({} if t is None or np.isnan(t) else {"threshold": t}))
        for s, t in zip(known["strategy"], known["threshold"], strict=True)
    ]
    names = {
        section: [Component.of(name) for name in frame[section].unique()] for section in ("data", "model", "optimizer")
    }
    vocabulary = Vocabulary.of(arms_, names)
    asked = [(claim, {}) if isinstance(claim, str) else claim for claim in claims]
    stated = tuple(
        (Claim(says=f"says {expect}", expect=expect, **more), read(expect, vocabulary)) for expect, more in asked
    )
    return compare(frame, ReportOptions(claims=stated, **options), name="claims")


def verdict_of(rows, claim, **options):
    (answered,) = answers(rows, claim, **options).claims
    return answered.verdict


def test_better_is_supported_its_opposite_refuted_and_no_difference_neither():
    rows = quickstart()
    assert verdict_of(rows, "norm > none") == "supported"
    assert verdict_of(rows, "norm < none") == "refuted"
    assert verdict_of(rows, "none > norm") == "refuted"
    assert verdict_of(rows, "none > value") == "supported"
    assert verdict_of(rows, "norm@0.1 > none") == "inconclusive"


def test_p_is_the_paired_permutation_test_that_scipy_does_and_holm_is_over_the_claims():
    frame = quickstart()
    test = frame.pivot(index="seed", columns="arm", values="test/accuracy")
    difference = (test["norm@0.5"] - test["none"]).to_numpy()
    exact = scipy_stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    first, second = answers(frame, "norm@0.5 > none", "norm@5 < none").claims
    assert first.p == pytest.approx(exact.pvalue, abs=1e-12)
    assert first.p_holm == pytest.approx(min(1, 2 * first.p))
    interval = scipy_stats.ttest_1samp(difference, 0).confidence_interval()
    assert (first.difference.low, first.difference.high) == pytest.approx(tuple(interval), abs=1e-9)
    assert second.p >= first.p


def test_margin_asks_for_more():
    rows = arm("none") + arm("norm", 1.0, gain=0.03)
    assert verdict_of(rows, ("norm > none", {"margin": 0.01})) == "supported"
    assert verdict_of(rows, ("norm > none", {"margin": 0.06})) == "refuted"


def test_lower_is_better_turns_the_relation():
    rows = [r | {"test/loss": 1 - r["test/accuracy"]} for r in arm("none") + arm("norm", 1.0, gain=0.03)]
    (answered,) = answers(rows, ("norm > none", {"metric": "test/loss"})).claims
    assert answered.verdict == "supported"
    assert answered.metric.name == "test/loss"
    assert answered.difference.mean > 0


def twin(name, rows):
    """Another arm with the results of these trials."""
    return [r | {"strategy": name, "arm": name, "id": f"{name}{r['seed']}"} for r in rows]


def same_weights(rows):
    return [r | {"weight_norm": 1.0 + r["seed"]} for r in rows]


def test_equality_is_shown_within_a_margin_or_by_identity_never_by_a_large_p():
    base = same_weights(arm("none", spread=0.001))
    rows = base + twin("skip", base) + arm("norm", 1.0, spread=0.001) + arm("value", 1.0, gain=0.1)
    assert verdict_of(rows, "norm = none") == "inconclusive"
    assert verdict_of(rows, ("norm = none", {"margin": 0.01})) == "supported"
    assert verdict_of(rows, "norm = none", margin=0.01) == "supported"
    assert verdict_of(rows, ("value = none", {"margin": 0.01})) == "refuted"
    assert verdict_of(rows, "value = none") == "refuted"
    assert verdict_of(rows, "skip = none") == "supported"
    assert verdict_of(rows, "skip > none") == "refuted"


def test_threshold_that_never_clips_proves_nothing_about_the_others():
    """It is chosen by luck on two seeds; on other seeds another threshold may be, which trains other weights."""
    base = same_weights(arm("none", seeds=2))
    loose = [r | {"strategy": "norm", "threshold": 9.0, "arm": "norm@9.0", "id": f"norm{r['seed']}"} for r in base]
    tight = [r | {"weight_norm": 0.5} for r in arm("norm", 1.0, gain=-0.01, seeds=2)]
    for claim in ("norm > none", "norm = none", ("norm = none", {"margin": 0.001})):
        assert verdict_of(base + loose + tight, claim) == "inconclusive"
    assert verdict_of(base + loose + tight, "norm@9 = none") == "supported"
    (answered,) = answers(base + loose + tight, "norm = none").claims
    said = "the same training on all 2 seeds at the chosen threshold, but not at the others"
    assert claim_evidence.reason(answered) == said
    assert verdict_of(base + loose, "norm > none") == "refuted"
    (only,) = compare(pd.DataFrame(base + loose + tight)).settings
    assert verdicts(only)["norm@9.0"] == "no effect"  # the row is about this threshold alone


def test_inconclusive_says_how_many_seeds_it_would_take():
    (answered,) = answers(arm("none", seeds=4) + arm("norm", 1.0, gain=0.1, seeds=4), "norm > none").claims
    assert (answered.verdict, answered.seeds_needed) == ("inconclusive", 6)
    rng = np.random.default_rng(1)
    rows = [trial("none", None, seed, 0.9 + 0.01 * rng.normal()) for seed in range(8)]
    rows += [trial("norm", 1.0, seed, 0.903 + 0.01 * rng.normal()) for seed in range(8)]
    (answered,) = answers(rows, "norm > none").claims
    assert answered.verdict == "inconclusive"
    assert answered.seeds_needed > 8
    assert "80 % power" in claim_evidence.reason(answered)


def crowded(*, family=""):
    """A strong claim among ten others about noise."""
    rng = np.random.default_rng(3)
    rows = arm("none") + arm("norm", 1.0, gain=0.1)
    rows += [trial("value", float(t), seed, 0.9 + 0.01 * rng.normal()) for t in range(1, 11) for seed in range(8)]
    others = [(f"value@{t} > none", {}) for t in range(1, 11)]
    return answers(rows, ("norm > none", {"family": family}), *others).claims


def test_claims_of_another_family_do_not_weaken_a_claim():
    alone, *_ = crowded(family="size")
    assert (alone.verdict, alone.family_size) == ("supported", 1)
    assert alone.p_holm == alone.p == pytest.approx(2 / 2**8)
    assert "(8 seeds, 1 claim of the family 'size')" in claim_evidence.sentence(alone)


def test_claim_that_only_the_number_of_claims_leaves_open_says_so():
    among, *_ = crowded()
    assert (among.verdict, among.family_size, among.held) == ("inconclusive", 11, 8)
    assert "significant alone (p = 0.008), but not after correction for 11 claims" in claim_evidence.reason(among)
    assert "about 9 seeds would decide it" in claim_evidence.reason(among)


def test_refuted_gain_by_a_margin_is_not_called_worse():
    rows = arm("none") + arm("norm", 1.0, gain=0.03)
    (answered,) = answers(rows, ("norm > none", {"margin": 0.1})).claims
    assert answered.verdict == "refuted" and answered.difference.mean > 0
    assert claim_evidence.reason(answered) == "not better by more than 10 pp: so on 8 of 8 seeds"


def test_seeds_at_the_near_end_of_the_interval_are_more():
    rng = np.random.default_rng(3)
    gains = 0.02 + 0.006 * rng.normal(size=5)
    rows = [trial("none", None, seed, 0.9) for seed in range(5)]
    rows += [trial("norm", 1.0, seed, 0.9 + gains[seed]) for seed in range(5)]
    (answered,) = answers(rows, "norm > none").claims
    assert 5 < answered.seeds_needed < answered.seeds_needed_low < 10_000
    assert answered.seeds_needed_low == claims_power(answered.difference.low, gains)
    said = f"{answered.seeds_needed_low:.0f} at the unfavourable end of its interval"
    assert claim_evidence.reason(answered).endswith(said)


def claims_power(effect, gains):
    return stats.seeds_for_power(effect / gains.std(ddof=1))


def test_inconclusive_equality_asks_for_the_seeds_that_the_margin_takes():
    rng = np.random.default_rng(4)
    noise = rng.normal(size=8)
    noise = 0.01 * (noise - noise.mean()) / noise.std(ddof=1)
    rows = [trial("none", None, seed, 0.9) for seed in range(8)]
    rows += [trial("norm", 1.0, seed, 0.9 + noise[seed]) for seed in range(8)]
    (answered,) = answers(rows, ("norm = none", {"margin": 0.005})).claims
    assert answered.verdict == "inconclusive"
    assert answered.seeds_needed == pytest.approx(36, abs=1)  # (1.645 + 1.282)**2 / 0.5**2 and a little for t
    (answered,) = answers(rows, ("norm = none", {"margin": 0.0})).claims
    assert answered.seeds_needed == np.inf


def test_equality_that_lies_beyond_its_margin_asks_for_the_seeds_that_refute_it():
    rng = np.random.default_rng(4)
    rows = [trial("none", None, seed, 0.9) for seed in range(5)]
    rows += [trial("norm", 1.0, seed, 0.93 + 0.005 * rng.normal()) for seed in range(5)]
    (answered,) = answers(rows, ("norm = none", {"margin": 0.02})).claims
    assert answered.verdict == "inconclusive"
    assert 5 < answered.seeds_needed < 50


def test_gain_in_one_setting_is_not_outweighed_by_a_small_steady_loss_in_another():
    """The claim is about the mean over both, and one side is chosen among two thresholds."""
    rng = np.random.default_rng(0)
    rows = []
    for lr, gain, spread in ((0.1, 0.15, 0.02), (1.0, -0.01, 0.001)):
        for seed in range(12):
            rows += [trial("none", None, seed, 0.5, lr=lr)]
            rows += [trial("norm", 1.0, seed, 0.5 + gain + spread * rng.normal(), lr=lr)]
            rows += [trial("norm", 2.0, seed, 0.5 - 0.02 + spread * rng.normal(), lr=lr)]
    (answered,) = answers(rows, "norm > none").claims
    assert answered.difference.mean == pytest.approx(0.07, abs=0.01)
    assert (answered.verdict, answered.held) == ("supported", 12)


def test_who_reaches_the_target_in_the_last_epoch_is_faster_than_who_never_does():
    rows = [trial("none", None, seed, **{"epochs_to_target": 20.0}) for seed in range(8)]
    rows += [trial("norm", 1.0, seed, **{"epochs_to_target": np.nan}) for seed in range(8)]
    assert verdict_of(rows, ("none > norm", {"metric": "epochs_to_target"})) == "supported"


def test_one_seed_says_nothing_about_equality():
    rows = arm("none", seeds=1) + arm("norm", 1.0, seeds=1)
    assert verdict_of(rows, ("norm = none", {"margin": 0.01})) == "inconclusive"


def test_more_seeds_are_advised_than_there_are_wherever_a_claim_is_open():
    """A steady gain of which only the choice among equal thresholds leaves the p too large."""
    rng = np.random.default_rng(2)
    rows = [trial("none", None, seed, 0.5) for seed in range(6)]
    rows += [trial("norm", float(t), seed, 0.6 + 0.01 * rng.normal()) for t in range(1, 4) for seed in range(6)]
    (answered, *_) = answers(rows, "norm > none", "norm@1 > none", "norm@2 > none").claims
    assert (answered.verdict, answered.pairs) == ("inconclusive", 6)
    assert answered.seeds_needed >= 6 + np.log2(answered.p_holm / 0.05) > 6


def test_refuted_equality_says_that_it_is_not_within_the_margin():
    rows = arm("none") + arm("norm", 1.0, gain=0.1)
    (answered,) = answers(rows, ("norm = none", {"margin": 0.01})).claims
    assert claim_evidence.reason(answered) == "not within ±1 pp"


def test_measures_that_are_neither_good_nor_bad_are_compared_as_measured_where_trials_diverged():
    norms = {"none": 2748.0, "norm": 0.81}
    rows = [
        r | {"grad_norm/pre_p50": norms["none"] + r["seed"], "parameters": 193.0}
        for r in diverged("none", None, range(8))
    ]
    rows += [r | {"grad_norm/pre_p50": norms["norm"], "parameters": 193.0} for r in arm("norm", 1.0)]
    assert verdict_of(rows, ("norm < none", {"metric": "grad_norm/pre_p50"})) == "supported"
    assert verdict_of(rows, ("norm > none", {"metric": "grad_norm/pre_p50"})) == "refuted"
    assert verdict_of(rows, ("norm = none", {"metric": "parameters"})) == "supported"
    (answered,) = answers(rows, "norm > none").claims
    assert answered.verdict == "supported"
    assert "(8 seeds, 8 of them with divergence)" in claim_evidence.sentence(answered)


def test_ties_do_not_refute_a_gain_by_more_than_a_margin():
    """One example of twelve is 8 pp: nobody can see a lead of 0.2 pp."""
    rows = [r | {"fingerprint": "x"} for r in arm("none", spread=0.0) + arm("norm", 1.0, spread=0.0)]
    claim = ("norm > none", {"margin": 0.002})
    assert verdict_of(rows, claim, examples={"x": {"test": 12}}) == "inconclusive"
    assert verdict_of(rows, claim, examples={"x": {"test": 12_000}}) == "refuted"
    worse = [r | {"fingerprint": "x"} for r in arm("none", spread=0.0) + arm("norm", 1.0, gain=-0.3, spread=0.0)]
    assert verdict_of(worse, claim, examples={"x": {"test": 12}}) == "refuted"


def test_gain_as_large_as_the_margin_is_refuted_at_most_at_the_nominal_rate():
    """Twelve test examples, of which the left side gets 1 % more right: most seeds tie."""
    rng, refuted, draws = np.random.default_rng(1), 0, 200
    for _ in range(draws):
        gains = rng.binomial(12, 0.01, 8) / 12
        rows = [trial("none", None, seed, 0.5, fingerprint="x") for seed in range(8)]
        rows += [trial("norm", 1.0, seed, 0.5 + gains[seed], fingerprint="x") for seed in range(8)]
        claim = ("norm > none", {"margin": 0.01})
        refuted += verdict_of(rows, claim, examples={"x": {"test": 12}}) == "refuted"
    assert refuted <= 0.05 * draws


def test_margin_of_zero_is_a_margin():
    rows = arm("none") + arm("norm", 1.0)
    assert verdict_of(rows, ("norm = none", {"margin": 0.0}), margin=0.5) == "inconclusive"
    assert verdict_of(rows, "norm = none", margin=0.5) == "supported"


def test_time_to_a_target_that_no_trial_reached_is_untestable():
    rows = [r | {"epochs_to_target": np.nan} for r in arm("none") + arm("norm", 1.0)]
    (answered,) = answers(rows, ("norm > none", {"metric": "epochs_to_target"})).claims
    assert (answered.verdict, answered.untestable) == ("untestable", "no trial reached the target")


def test_families_of_one_claim_each_are_called_what_they_are():
    rows = arm("none") + arm("norm", 1.0) + arm("value", 1.0)
    found = answers(rows, ("norm > none", {"family": "a"}), ("value > none", {"family": "b"}))
    assert any(note.startswith("Each of the 2 claims has a family of its own") for note in notes.of_report(found))
    both = answers(rows, ("norm > none", {"family": "a"}), ("value > none", {"family": "a"}))
    assert not any("family" in note for note in notes.of_report(both))


def test_always_is_refuted_by_one_counterexample_on_one_seed():
    rows = arm("none") + arm("norm", 1.0, gain=0.1) + arm("norm", 2.0, gain=0.1)
    assert verdict_of(rows, "always(norm > none)") == "supported"
    assert verdict_of(rows, "always(none < norm)") == "supported"
    rows[-1]["test/accuracy"] = 0.1
    (answered,) = answers(rows, "always(norm > none)").claims
    assert (answered.verdict, claim_evidence.reason(answered)) == ("refuted", "1 of 16 cases are counterexamples")
    assert verdict_of(rows, "norm@1 > none") == "supported"


def test_always_equal_is_identity_on_every_seed():
    base = same_weights(arm("none"))
    rows = base + twin("noop", base)
    assert verdict_of(rows, "always(noop = none)") == "supported"
    rows[-1]["test/accuracy"] += 1e-9
    assert verdict_of(rows, "always(noop = none)") == "refuted"
    assert verdict_of(rows, ("always(noop = none)", {"margin": 1e-6})) == "supported"


@pytest.mark.parametrize("claim", ["tie = none", "tie > none", "always(tie = none)", ("tie = none", {"margin": 0.005})])
def test_equal_results_of_other_weights_prove_nothing(claim):
    """Both arms classify all 36 test examples: that is no identity, and few seeds are no equivalence."""
    base = [trial("none", None, seed, 1.0, weight_norm=1.0, fingerprint="x") for seed in range(8)]
    rows = base + [r | {"weight_norm": 2.0} for r in twin("tie", base)]
    examples = {"x": {"test": 36}}
    assert verdict_of(rows, claim, examples=examples) == "inconclusive"
    rows = base + [r | {"weight_norm": np.nan} for r in twin("tie", base)]
    assert verdict_of(rows, claim, examples=examples) == "inconclusive"
    rows = base + twin("tie", base)
    identical = "refuted" if claim == "tie > none" else "supported"
    assert verdict_of(rows, claim, examples=examples) == identical


@pytest.mark.parametrize("seeds", [3, 16, 17])
def test_ties_are_no_effect_only_with_enough_seeds_and_examples(seeds):
    """exp(-17 * 0.005 * 36) is the first below 0.05."""
    base = [trial("none", None, seed, 1.0, weight_norm=1.0, fingerprint="x") for seed in range(seeds)]
    rows = base + [r | {"weight_norm": 2.0} for r in twin("tie", base)]
    options = {"margin": 0.005, "metric": "test/accuracy"}
    few = answers(rows, "tie = none", examples={"x": {"test": 36}}, **options)
    is_shown = seeds == 17
    assert few.claims[0].verdict == ("supported" if is_shown else "inconclusive")
    assert (verdicts(few.settings[0])["tie"] == "no effect") == is_shown
    assert any("with other weights: tie" in note for note in notes.of_setting(few.settings[0])) != is_shown
    many = answers(rows, "tie = none", examples={"x": {"test": 3600}}, **options)
    assert many.claims[0].verdict == "supported"
    assert verdicts(many.settings[0])["tie"] == "no effect"


def test_examples_are_those_of_the_plan(tmp_path):
    plan = prepare(write(tmp_path, data={"name": "wine", "folds": 3}, clip=["none"], seeds=1))
    sizes = sorted(parts["test"] for parts in subject_of(plan).options.examples.values())
    assert (sizes, sum(sizes)) == ([59, 59, 60], 178)


def test_rule_that_never_fired_is_identical_in_its_own_setting_only():
    unclipped = {"clip/fired_share": 0.0}
    rows = [
        r | {"test/accuracy": 1.0, "val/accuracy": 1.0}
        for lr in (0.1, 0.2)
        for r in [*arm("none", lr=lr, **unclipped), *arm("norm", 1.0, lr=lr, **unclipped)]
    ]
    known = Vocabulary.of([Component.of("none"), Component.of("norm", threshold=1.0)], {}, {"lr": ("0.1", "0.2")})
    claims = "norm = none", "norm[lr=0.1] = norm[lr=0.2]"
    stated = tuple((Claim(says=c, expect=c), read(c, known)) for c in claims)
    found = compare(pd.DataFrame(rows), ReportOptions(claims=stated)).claims
    assert [each.verdict for each in found] == ["supported", "inconclusive"]


def test_number_of_parameters_needs_no_seeds():
    rows = [r | {"parameters": 10} for r in arm("none", seeds=2) + arm("norm", 1.0, seeds=2)]
    assert verdict_of(rows, "parameters < none") == "refuted"


def two_optimizers(better="adam"):
    return [
        r
        for name, lr in (("sgd", 0.1), ("adam", 0.001))
        for r in arm("none", optimizer=name, lr=lr, gain=0.05 * (name == better))
        + arm("norm", 1.0, optimizer=name, lr=lr, gain=0.05 * (name == better) + 0.02 * (name == "sgd"))
    ]


def test_settings_are_compared_within_one_across_two_or_as_a_whole():
    rows = [r | {"optimizer.momentum": 0.9 if r["optimizer"] == "sgd" else None} for r in two_optimizers()]
    assert verdict_of(rows, "sgd.norm > sgd.none") == "supported"
    assert verdict_of(rows, "adam.norm > adam.none") == "inconclusive"
    assert verdict_of(rows, "adam.none > sgd.none") == "supported"
    assert verdict_of(rows, "adam > sgd") == "supported"
    assert verdict_of(rows, "sgd > adam") == "refuted"
    (both,) = answers(rows, "norm > none").claims
    frame = pd.DataFrame(rows).pivot(index="seed", columns=["optimizer", "arm"], values="test/accuracy")
    means = [(frame[name]["norm@1.0"] - frame[name]["none"]).mean() for name in ("adam", "sgd")]
    assert both.difference.mean == pytest.approx(np.mean(means))


def with_option(column, gains):
    """Both arms at every value of an option, `norm` better by the value's gain."""
    return [
        r | {column: value, "id": f"{r['id']}{value}"}
        for value, gain in gains.items()
        for r in arm("none", seeds=8) + arm("norm", 1.0, gain=gain, seeds=8)
    ]


def option_answers(rows, *claims):
    values = {"train.l2": ("0", "0.001")}
    known = Vocabulary.of([Component.of("none"), Component.of("norm", threshold=1.0)], {}, values)
    stated = tuple((Claim(says=c, expect=c), read(c, known)) for c in claims)
    return [each.verdict for each in compare(pd.DataFrame(rows), ReportOptions(claims=stated)).claims]


def test_options_in_brackets_choose_settings_and_hold_for_both_sides():
    rows = with_option("train.l2", {0.0: 0.05, 0.001: 0.0})
    for r in rows:
        r["test/accuracy"] -= 0.1 * (r["train.l2"] > 0)
    assert option_answers(rows, "norm[l2=0] > none", "norm[l2=0.001] > none") == ["supported", "inconclusive"]
    assert option_answers(rows, "none[l2=0] > none[l2=0.001]") == ["supported"]


def test_options_of_a_section_in_which_the_sides_differ_stay_with_their_side():
    rows = two_optimizers()
    values = {"lr": ("0.1", "0.001")}
    sections = {"optimizer": [Component.of("sgd"), Component.of("adam")]}
    known = Vocabulary.of([Component.of("none"), Component.of("norm", threshold=1.0)], sections, values)
    claim = Claim(says="x", expect="adam.none > sgd.none[lr=0.1]")
    assert compare(pd.DataFrame(rows), ReportOptions(claims=((claim, read(claim.expect, known)),))).claims[
        0
    ].verdict == ("supported")


def test_option_that_has_options_is_compared_whatever_these_are():
    rows = with_option("train.noise", {"normal": 0.0, "weibull": 0.0})
    for r in rows:
        r["train.noise.shape"] = 0.2 if r["train.noise"] == "weibull" else None
        r["weight_norm"] = 1.0
    known = Vocabulary.of([Component.of("none")], {}, {"train.noise": ("normal", "weibull"), "train.noise.shape": ()})
    claim = Claim(says="x", expect="none[train.noise=weibull] = none[train.noise=normal]")
    options = ReportOptions(claims=((claim, read(claim.expect, known)),))
    assert compare(pd.DataFrame(rows), options).claims[0].verdict == "supported"


def test_margin_of_the_report_is_for_equality_and_not_for_the_signs_within_brackets():
    rows = with_option("train.l2", {0.0: 0.03, 0.001: 0.03})
    values = Vocabulary.of(
        [Component.of("none"), Component.of("norm", threshold=1.0)], {}, {"train.l2": ("0", "0.001")}
    )
    claim = Claim(says="x", expect="norm[l2=0] > none[l2=0]")
    options = ReportOptions(margin=0.05, metric="test/accuracy", claims=((claim, read(claim.expect, values)),))
    assert compare(pd.DataFrame(rows), options).claims[0].verdict == "supported"


def test_difference_of_differences_asks_whether_an_option_changes_what_a_rule_gains():
    rows = with_option("train.l2", {0.0: 0.0, 0.001: 0.06})
    more, less = "(norm - none)[l2=0.001]", "(norm - none)[l2=0]"
    assert option_answers(rows, f"{more} > {less}", f"{less} > {more}") == ["supported", "refuted"]
    for r in rows:
        if r["arm"] == "none":  # diverges in both settings: nothing is gained by the option
            r |= {"status": "diverged", "test/accuracy": np.nan}
    assert option_answers(rows, f"{more} > {less}") == ["inconclusive"]


def test_measure_as_a_side_means_every_strategy():
    rows = [r | {"parameters": 10} for r in arm("none") + arm("norm", 1.0, gain=0.1)]
    (answered,) = answers(rows, "always(parameters = none)").claims
    assert (answered.verdict, answered.metric.name) == ("supported", "parameters")
    rows[-1]["parameters"] = 11
    assert verdict_of(rows, "always(parameters = none)") == "refuted"


def test_divergence_decides_a_claim():
    rows = diverged("none", None, range(8)) + arm("norm", 1.0)
    (answered,) = answers(rows, "norm > none").claims
    assert (answered.verdict, answered.difference.n, answered.pairs) == ("supported", 0, 8)
    assert verdict_of(rows, ("norm = none", {"margin": 0.5})) == "refuted"
    assert verdict_of(rows, "always(norm > none)") == "supported"


def test_lucky_threshold_of_many_supports_no_claim():
    """The same made-up case on which the comparison refuses to call the strategy better."""
    rng = np.random.default_rng(22)
    rows = [trial("none", None, seed, rng.normal()) for seed in range(8)]
    rows += [trial("norm", float(t), seed, rng.normal()) for t in range(1, 31) for seed in range(8)]
    assert verdict_of(rows, "norm > none") == "inconclusive"
    assert verdict_of(rows, "none > norm") == "inconclusive"


@pytest.mark.parametrize(
    ("rows", "claim", "reason"),
    [
        (arm("none"), "norm > none", "norm has no finished trial"),
        (arm("none") + arm("norm", 1.0), ("norm > none", {"metric": "test/mse"}), "no trial has the metric"),
        (arm("none") + arm("norm", 1.0), "adam.norm > none", "one of its sides has no finished trial"),
        (
            [r | {"val/accuracy": np.nan} for r in arm("none") + arm("norm", 1.0) + arm("norm", 2.0)],
            "norm > none",
            "norm has several thresholds and there is no validation data",
        ),
        (arm("none", seeds=4) + arm("norm", 1.0)[4:], "norm > none", "no seed has both"),
    ],
)
def test_untestable_says_why(rows, claim, reason):
    (answered,) = answers(rows, claim).claims
    assert answered.verdict == "untestable"
    assert reason in claim_evidence.reason(answered)


def test_nothing_trained_is_untestable():
    vocabulary = Vocabulary.of(ARMS, {})
    claim = Claim(says="x", expect="norm > none")
    report = compare(pd.DataFrame(), ReportOptions(claims=((claim, read(claim.expect, vocabulary)),)))
    assert report.claims[0].verdict == "untestable"


@pytest.mark.parametrize("studies", [40, pytest.param(100, marks=pytest.mark.slow)])
def test_true_null_supports_or_refutes_at_most_at_the_nominal_rate(studies):
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(studies):
        rows = [trial(name, None, seed, rng.normal()) for name in ("none", "a", "b") for seed in range(8)]
        found = answers(rows, "a > none", "b > none", "a > b").claims
        wrong += any(each.verdict in ("supported", "refuted") for each in found)
    assert wrong / studies <= 0.05 + 2 * (0.05 * 0.95 / studies) ** 0.5  # two standard errors of what is counted


# Showing


CLAIMS = (
    "norm > none",
    "value > none",
    "norm@0.1 > none",
    "always(skip = none)",
    "adam.norm > none",
    ("norm = norm(per=tensor)", {"margin": 0.02}),
)


def test_terminal_and_markdown_say_what_they_said():
    report = answers(quickstart(), *CLAIMS)
    console = Console(width=80, file=io.StringIO())
    terminal.render(report, console, full=False)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    check_golden("report/claims.txt", text[text.index("Claims\n") : text.index("arm: A clipping strategy")])
    text = markdown.render(report)
    check_golden("report/claims.md", text[text.index("## Claims") : text.index("How to read")])


def test_html_and_json_hold_every_claim():
    report = answers(quickstart(), *CLAIMS)
    page = html.render(report, figures.draw(report, {}))
    claims = json.loads(json_report.render(report))["claims"]
    assert [claim["verdict"] for claim in claims] == [each.verdict for each in report.claims]
    for each in report.claims:
        assert each.expect.replace(">", "&gt;") in page
    assert page.index('id="claims"') > page.index("The answer")
