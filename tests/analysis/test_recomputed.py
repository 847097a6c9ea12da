"""The report of a real run, recomputed from its Parquet files by pandas and scipy alone: every number agrees to 1e-9."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.cli_helpers import train, write

SEEDS = 7  # an odd number, so that nothing cancels by symmetry
MARGIN = 0.05
CLAIMS = ("norm@0.5 > none", "norm@0.5 = none", "(norm@0.5 - none)[lr=3.0] > (norm@0.5 - none)[lr=0.3]")
# Two learning rates, at the larger of which some seeds diverge, and a target that some do not reach.
EXPERIMENTS = {
    "digits": {
        "data": {"name": "digits", "limit": 400},
        "train": {"epochs": 4, "batch_size": 32, "target": {"val/accuracy": 0.8}, "diverge_above": 2.6},
    },
    "folds": {
        "data": {"name": "wine", "folds": 3},
        "model": {"name": "mlp", "hidden": [16, 16]},
        "train": {"epochs": 4, "batch_size": 32, "target": {"val/accuracy": 0.9}, "diverge_above": 20.0},
    },
}
SETTING = ["lr", "strategy", "threshold", "arm"]


@pytest.fixture(scope="module", params=EXPERIMENTS)
def ran(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recomputed")
    path = write(
        folder,
        **EXPERIMENTS[request.param],
        optimizer={"name": "sgd", "lr": [0.3, 3.0]},
        clip=["none", {"name": "norm", "threshold": [0.1, 0.5]}, {"name": "value", "threshold": [0.01, 0.1]}],
        seeds=SEEDS,
        report={"metric": "test/accuracy", "margin": MARGIN},
        claims=[{"says": claim, "expect": claim} for claim in CLAIMS],
    )
    train(path, folder / "results")
    report = json.loads((folder / "results" / "small" / "report.json").read_text())
    return report, pd.read_parquet(folder / "results" / "small" / "records")


@pytest.fixture
def seeds(ran):
    """A row for each arm and seed: the means over its folds, which have none if a fold has none."""
    groups = ran[1].groupby([*SETTING, "seed"], dropna=False)
    measures = ["test/accuracy", "val/accuracy", "epochs_to_target", "clip/fired_share", "grad_norm/pre_p50", "step_us"]
    frame = groups[measures].agg(lambda values: values.mean(skipna=False))
    frame["weight_norm"] = groups["weight_norm"].agg(lambda values: values.mean(skipna=False))
    frame["diverged"] = groups["status"].agg(lambda status: status.eq("diverged").any())
    frame.loc[frame["diverged"], ["test/accuracy", "val/accuracy", "epochs_to_target"]] = np.nan
    return frame.reset_index()


@pytest.fixture
def rows(ran, seeds):
    """Each row of the report with its seeds and those of its baseline, and its setting."""
    found = []
    for setting in ran[0]["settings"]:
        part = seeds[seeds["lr"] == float(setting["axes"]["lr"])]
        (baseline,) = (row["arm"] for row in setting["rows"] if row["verdict"] == "baseline")
        by_arm = {arm: trials.set_index("seed").sort_index() for arm, trials in part.groupby("arm")}
        found += [(row, by_arm[row["arm"]], by_arm[baseline], setting) for row in setting["rows"]]
    return found


def near(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True)


def t_interval(values):
    error = stats.sem(values)
    return stats.t.interval(0.95, len(values) - 1, values.mean(), error) if error else (values.mean(),) * 2


def ranked_of(*pairs):
    """Rows of differences by seed, one of each pair of arms.

    A seed on which one diverged counts more than all others together, one on which both did not at all.
    """
    plain = np.array([mine["test/accuracy"] - base["test/accuracy"] for mine, base in pairs], float)
    lost, won = (np.array([pair[side]["diverged"] for pair in pairs], bool) for side in (0, 1))
    large = 2 * np.nansum(np.abs(plain)) or 1.0
    return np.where(lost & won, 0.0, np.where(lost, -large, np.where(won, large, plain)))


def finished_of(mine, base):
    plain = (mine["test/accuracy"] - base["test/accuracy"]).to_numpy(float)
    return plain[np.isfinite(plain)]


def sign_flip(values):
    sums = [np.dot(signs, values) for signs in itertools.product((1, -1), repeat=len(values))]
    return np.mean(np.abs(sums) >= abs(values.sum()) - 1e-9)


def after_choice(mine, candidates, base):
    """p of the arm that seems better, where each pattern of signs chooses among the candidates anew."""
    outcomes = ranked_of(*((candidate, base) for candidate in candidates))
    if len(candidates) == 1:
        return sign_flip(outcomes[0])
    criteria = ranked_of(*(validation(candidate, base) for candidate in candidates))
    best = [candidate is mine for candidate in candidates].index(True)
    patterns = list(itertools.product((1, -1), repeat=SEEDS))
    observed = own_p(outcomes[best], (1,) * SEEDS, patterns)
    worse = outcomes.mean(1) + stats.t.ppf(1 - 0.025 / len(outcomes), SEEDS - 1) * stats.sem(outcomes, axis=1) < 0
    spread = np.sqrt(SEEDS / (SEEDS - 1))
    for values in (outcomes, criteria):
        values[worse] = spread * (values[worse] - values[worse].mean(1, keepdims=True))
    p_values = []
    for signs in patterns:
        scores = criteria @ signs
        chosen = np.argmax(scores >= scores.max() - 1e-9 * np.abs(scores).max())
        p_values.append(own_p(outcomes[chosen], signs, patterns))
    return min(1.0, 2 * np.mean(np.array(p_values) <= observed + 1e-11))


def own_p(row, signs, patterns):
    """The share of the patterns of signs by which a row has at least the sum that these give it.

    Of two equal shares, the one with the larger mean in units of the root mean square is the smaller p.
    """
    sums = np.array(patterns) @ row
    share = np.mean(sums >= row @ signs - 1e-9 * np.abs(sums).max())
    size = np.sqrt((row**2).mean())
    return share - (row @ signs / size / len(row) / (4 * len(patterns)) if size else 0)


def validation(*arms):
    return tuple(arm.assign(**{"test/accuracy": arm["val/accuracy"]}) for arm in arms)


def holm(p):
    order = np.argsort(p, kind="stable")
    falling = np.maximum.accumulate((len(p) - np.arange(len(p))) * np.asarray(p)[order])
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(falling, 1)
    return corrected


def test_there_is_something_of_everything(ran, seeds):
    report, records = ran
    assert 0 < records["status"].eq("diverged").sum() < len(records) / 2
    assert 0 < seeds["epochs_to_target"].notna().sum() < len(seeds)
    assert sum(row["shown"] for setting in report["settings"] for row in setting["rows"]) == 6
    if "data.fold" in records:  # a seed of which some folds reach the target and some do not
        reached = records.assign(reached=records["epochs_to_target"].notna()).groupby(["lr", "arm", "seed"])["reached"]
        assert (reached.any() & ~reached.all()).any()


def test_means_and_intervals_are_those_of_the_seeds(rows):
    for row, mine, _, setting in rows:
        finished = mine[~mine["diverged"]]
        values = finished["test/accuracy"].to_numpy(float)
        assert (row["trials"], row["diverged"], row["nonfinite"]) == (SEEDS, SEEDS - len(finished), 0)
        if len(values) > 1:
            assert row["value"]["mean"] == near(values.mean())
            assert (row["value"]["low"], row["value"]["high"]) == near(t_interval(values))
            assert row["criterion"] == near(finished["val/accuracy"].mean())
        assert row["fired_share"] == near(mine["clip/fired_share"].mean())
        assert row["grad_norm"] == near(mine["grad_norm/pre_p50"].median())
        assert row["step_us"] == near(mine["step_us"].median())
        reach, times = row["reach"], mine["epochs_to_target"]
        assert (reach["reached"], reach["trials"]) == (times.notna().sum(), SEEDS)
        assert reach["restricted"] == near(times.fillna(4).mean())
        median = times.fillna(np.inf).median()
        assert reach["median"] == (None if np.isinf(median) else near(median))
        assert setting["metric"]["name"] == "test/accuracy"


def test_chosen_thresholds_diverged_least_and_then_are_best_on_validation(ran, seeds):
    """Chosen anew from the records: the validation accuracy, and nothing that the report says, decides."""
    report, _ = ran
    arms = (
        seeds.groupby(["lr", "strategy", "arm"], as_index=False)
        .agg(diverged=("diverged", "sum"), validation=("val/accuracy", "mean"))
        .sort_values(["diverged", "validation"], ascending=[True, False])
    )
    best = arms.groupby(["lr", "strategy"], as_index=False).first()
    shown = {
        (float(setting["axes"]["lr"]), row["arm"])
        for setting in report["settings"]
        for row in setting["rows"]
        if row["shown"]
    }
    assert shown == set(zip(best["lr"], best["arm"], strict=True))
    main = {(float(setting["axes"]["lr"]), arm) for setting in report["settings"] for arm in setting["main"]}
    assert main == shown


def test_differences_effects_and_intervals_are_paired_by_seed(rows):
    for row, mine, base, _ in rows:
        if row["contrast"] is None:
            continue
        found, finished, (ranked,) = row["contrast"], finished_of(mine, base), ranked_of((mine, base))
        assert (found["pairs"], found["difference"]["n"]) == (SEEDS, len(finished))
        if len(finished) > 1 and finished.std() > 0:
            assert found["difference"]["mean"] == near(finished.mean())
            assert (found["difference"]["low"], found["difference"]["high"]) == near(t_interval(finished))
            assert found["dz"] == near(finished.mean() / finished.std(ddof=1))
        if len(finished) > 2 and finished.std() > 0:  # of two values nothing can be drawn
            bca = stats.bootstrap((finished,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
            low, high = bca.confidence_interval
            ends = found["bootstrap"]["low"], found["bootstrap"]["high"]
            assert ends == pytest.approx((low, high), abs=0.1 * (high - low))
        signed = np.sign(ranked) * stats.rankdata(np.where(ranked == 0, -1, np.round(np.abs(ranked), 12)))
        signed = np.sign(ranked) * (np.abs(signed) - (ranked == 0).sum()) * (ranked != 0)
        if signed.any():
            assert found["rank_biserial"] == near(signed.sum() / np.abs(signed).sum())
        assert found["p_wilcoxon"] == near(sign_flip(signed))
        score = found["score"]
        assert (score["wins"], score["ties"], score["losses"]) == tuple(
            (np.sign(ranked) == n).sum() for n in (1, 0, -1)
        )


def test_p_values_are_scipys_and_corrected_over_the_rows_of_the_table(rows):
    for words, group in itertools.groupby(rows, key=lambda each: each[3]["words"]):
        found = list(group)
        family = [each for each in found if each[0]["shown"] and each[0]["contrast"]]
        strategies = [[mine for row, mine, *_ in found if row["strategy"] == each[0]["strategy"]] for each in family]
        p = [sign_flip(ranked_of((mine, base))[0]) for _, mine, base, _ in family]
        p_choice = [
            max(alone, after_choice(mine, candidates, base)) if ranked_of((mine, base))[0].sum() > 0 else alone
            for alone, (_, mine, base, _), candidates in zip(p, family, strategies, strict=True)
        ]
        for number, (row, mine, base, _) in enumerate(family):
            contrast = row["contrast"]
            assert contrast["p"] == near(p[number]), words
            assert contrast["p_unchosen"] == near(holm(p)[number]), words
            assert contrast["p_choice"] == near(p_choice[number]), words
            assert contrast["p_holm"] == near(holm(p_choice)[number]), words
            counts = [[side["diverged"].sum(), (~side["diverged"]).sum()] for side in (mine, base)]
            assert contrast["p_diverged"] == near(stats.fisher_exact(counts).pvalue)
            reached = [side["epochs_to_target"] for side in (mine, base)]
            if any(times.notna().any() for times in reached):
                sides = [
                    stats.CensoredData(uncensored=times.dropna(), right=np.full(times.isna().sum(), 4.0))
                    for times in reached
                ]
                assert contrast["p_reach"] == near(stats.logrank(*sides).pvalue)


def test_luck_of_the_choice_is_taken_out_by_choosing_on_the_other_seeds(rows):
    for row, _, base, setting in rows:
        same = [each[1] for each in rows if each[3] is setting and each[0]["strategy"] == row["strategy"]]
        if not row["shown"] or len(same) < 2 or base["diverged"].any():
            continue
        whole = [candidate for candidate in same if not candidate["diverged"].any()]
        if len(whole) < 2:
            assert row["contrast"]["nested"] is None
            continue
        outcomes, criteria = (
            np.array([candidate[measure] - base[measure] for candidate in whole], float)
            for measure in ("test/accuracy", "val/accuracy")
        )
        chosen = [np.delete(criteria, seed, axis=1).sum(1).argmax() for seed in range(SEEDS)]
        assert row["contrast"]["nested"] == near(np.mean([outcomes[best, seed] for seed, best in enumerate(chosen)]))


def test_verdicts_follow_from_the_numbers(rows):
    for row, mine, base, setting in rows:
        if not row["shown"] or row["contrast"] is None:
            continue
        found, (ranked,), finished = row["contrast"], ranked_of((mine, base)), finished_of(mine, base)
        is_better = ranked.sum() > 0
        is_shown = found["p_holm"] < 0.05
        if is_shown and not (mine["diverged"] ^ base["diverged"]).any():
            ends = [
                stats.ttest_1samp(finished, side, alternative=way).pvalue
                for side, way in ((-MARGIN, "greater"), (MARGIN, "less"))
            ]
            is_shown = max(ends) >= 0.05
        good = {"best", "best on validation", "tied with best", "better"} if is_better else {"worse"}
        assert (row["verdict"] in good) == is_shown, setting["words"]


def test_claims_are_about_the_means_over_the_settings(ran, seeds):
    arms = {key: part.set_index("seed").sort_index() for key, part in seeds.groupby(["lr", "arm"])}
    pairs = [(arms[lr, "norm@0.5"], arms[lr, "none"]) for lr in (0.3, 3.0)]
    low, high = ranked_of(*pairs)
    (first, second) = (mine["test/accuracy"] - base["test/accuracy"] for mine, base in pairs)
    expected = [((low + high) / 2, (first + second) / 2)] * 2 + [(high - low, second - first)]
    claims = ran[0]["claims"]
    for claim, (ranked, difference) in zip(claims, expected, strict=True):
        if difference.notna().sum() > 1:
            known = difference.dropna().to_numpy(float)
            ends = claim["difference"]["mean"], claim["difference"]["low"], claim["difference"]["high"]
            assert ends == near((known.mean(), *t_interval(known)))
        if claim["expect"] != "norm@0.5 = none":
            assert claim["p"] == near(sign_flip(ranked))
    tested = [claim["p"] for claim in claims]
    assert [claim["p_holm"] for claim in claims] == near(holm(tested).tolist())
