"""The report of a real run, recomputed from its Parquet files by pandas and scipy alone: every number agrees to 1e-9."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.cli_helpers import train, write

SEEDS = 7  # an odd number, so that nothing cancels by symmetry


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Two learning rates, at the larger of which some seeds diverge, and a target that some do not reach."""
    folder = tmp_path_factory.mktemp("recomputed")
    path = write(
        folder,
        data={"name": "digits", "limit": 400},
        optimizer={"name": "sgd", "lr": [0.3, 3.0]},
        train={"epochs": 4, "batch_size": 32, "target": {"val/accuracy": 0.8}, "diverge_above": 2.6},
        clip=["none", {"name": "norm", "threshold": [0.1, 0.5]}, {"name": "value", "threshold": [0.01, 0.1]}],
        seeds=SEEDS,
    )
    train(path, folder / "results")
    report = json.loads((folder / "results" / "small" / "report.json").read_text())
    records = pd.read_parquet(folder / "results" / "small" / "records")
    return report, records


@pytest.fixture
def rows(ran):
    """Each row of the report with its trials and those of its baseline, by seed, and all of its setting."""
    report, records = ran
    found = []
    for setting in report["settings"]:
        part = records[records["lr"] == float(setting["axes"]["lr"])]
        (baseline,) = (row["arm"] for row in setting["rows"] if row["verdict"] == "baseline")
        by_arm = {arm: trials.set_index("seed").sort_index() for arm, trials in part.groupby("arm")}
        found += [(row, by_arm[row["arm"]], by_arm[baseline], setting) for row in setting["rows"]]
    return found


def near(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True)


def t_interval(values):
    error = stats.sem(values)
    return stats.t.interval(0.95, len(values) - 1, values.mean(), error) if error else (values.mean(),) * 2


def differences(mine, base):
    """By seed; a seed on which one diverged counts more than all others together, one on which both did not at all."""
    plain = (mine["test/accuracy"] - base["test/accuracy"]).to_numpy(float)
    lost, won = mine["status"].eq("diverged").to_numpy(), base["status"].eq("diverged").to_numpy()
    finished = plain[~lost & ~won]
    large = 1.0 + 2 * np.abs(finished).sum()
    return finished, np.where(lost & won, 0.0, np.where(lost, -large, np.where(won, large, plain)))


def sign_flip(values):
    sums = [np.dot(signs, values) for signs in itertools.product((1, -1), repeat=len(values))]
    return np.mean(np.abs(sums) >= abs(values.sum()) - 1e-9)


def test_there_is_something_of_everything(ran):
    report, records = ran
    assert 0 < records["status"].eq("diverged").sum() < len(records) / 2
    assert 0 < records["epochs_to_target"].notna().sum() < len(records)
    assert sum(row["shown"] for setting in report["settings"] for row in setting["rows"]) == 6


def test_means_and_intervals_are_those_of_the_trials(rows):
    for row, mine, _, setting in rows:
        finished = mine[mine["status"] == "finished"]
        values = finished["test/accuracy"].to_numpy(float)
        assert (row["trials"], row["diverged"]) == (SEEDS, SEEDS - len(finished))
        if len(values) > 1:
            assert row["value"]["mean"] == near(values.mean())
            assert (row["value"]["low"], row["value"]["high"]) == near(t_interval(values))
            assert row["criterion"] == near(finished["val/accuracy"].mean())
        assert row["fired_share"] == near(mine["clip/fired_share"].mean())
        assert row["grad_norm"] == near(mine["grad_norm/pre_p50"].median())
        times = mine["epochs_to_target"].fillna(4)
        assert row["reach"]["reached"] == mine["epochs_to_target"].notna().sum()
        assert row["reach"]["restricted"] == near(np.minimum(times, 4).mean())
        assert setting["metric"]["name"] == "test/accuracy"


def test_chosen_thresholds_diverged_least_and_then_are_best_on_validation(ran):
    """Chosen anew from the records: the validation accuracy, and nothing that the report says, decides."""
    report, records = ran
    finished = records["status"].eq("finished")
    arms = (
        records.assign(diverged=~finished, validation=records["val/accuracy"].where(finished))
        .groupby(["lr", "strategy", "arm"], as_index=False)
        .agg(diverged=("diverged", "sum"), validation=("validation", "mean"))
        .sort_values(["diverged", "validation"], ascending=[True, False])
    )
    several = arms.groupby(["lr", "strategy"]).filter(lambda thresholds: len(thresholds) > 1)
    assert several.groupby(["lr", "strategy"])["validation"].nunique().gt(1).all()  # there is something to choose
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
        found, (finished, ranked) = row["contrast"], differences(mine, base)
        if len(finished) > 1 and finished.std() > 0:
            assert found["difference"]["mean"] == near(finished.mean())
            assert (found["difference"]["low"], found["difference"]["high"]) == near(t_interval(finished))
            assert found["dz"] == near(finished.mean() / finished.std(ddof=1))
        if len(finished) > 2 and finished.std() > 0:  # of two values nothing can be drawn
            bca = stats.bootstrap((finished,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
            low, high = bca.confidence_interval
            ends = found["bootstrap"]["low"], found["bootstrap"]["high"]
            assert ends == pytest.approx((low, high), abs=0.1 * (high - low))
        ranks = stats.rankdata(np.round(np.abs(ranked[ranked != 0]), 12))
        if ranks.size:
            balance = ranks @ np.sign(ranked[ranked != 0]) / ranks.sum()
            assert found["rank_biserial"] == near(balance)
        score = found["score"]
        assert (score["wins"], score["losses"]) == ((ranked > 0).sum(), (ranked < 0).sum())


def test_p_values_are_scipys_and_corrected_over_the_rows_of_the_table(rows):
    for words, found in itertools.groupby(rows, key=lambda each: each[3]["words"]):
        family = [each for each in found if each[0]["shown"] and each[0]["contrast"]]
        p = np.array([sign_flip(differences(mine, base)[1]) for _, mine, base, _ in family])
        order = np.argsort(p, kind="stable")
        falling = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
        corrected = dict(zip(order, np.minimum(falling, 1), strict=True))
        for number, (row, mine, base, _) in enumerate(family):
            assert row["contrast"]["p"] == near(p[number]), words
            assert row["contrast"]["p_holm"] == near(corrected[number]), words
            counts = [
                [side["status"].eq("diverged").sum(), side["status"].ne("diverged").sum()] for side in (mine, base)
            ]
            assert row["contrast"]["p_diverged"] == near(stats.fisher_exact(counts).pvalue)
            reached = [side["epochs_to_target"] for side in (mine, base)]
            if any(times.notna().any() for times in reached):
                sides = [
                    stats.CensoredData(uncensored=times.dropna(), right=np.full(times.isna().sum(), 4.0))
                    for times in reached
                ]
                assert row["contrast"]["p_reach"] == near(stats.logrank(*sides).pvalue)
