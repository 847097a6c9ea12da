"""The report on made-up records whose answer is known, its formats word by word, what it must never hide."""

import csv
import dataclasses
import io
import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats as scipy_stats

from clipbench import stats
from clipbench.analysis import verdicts as verdict
from clipbench.analysis.report_model import Estimate, Metric, TargetEpochs
from clipbench.errors import InputError
from clipbench.reporting import ReportOptions, answer, certainty_notes, compare, comparison_tables, headline, notes
from clipbench.reporting import numbers as formatting
from clipbench.reporting.formats import csv_table, json_report, markdown, terminal
from tests.golden_files import check_golden

GOOD = {"best", "best on validation", "tied with best", "better"}
ACCURACY = Metric("test/accuracy", True, "val/accuracy")
LOSS = Metric("test/loss", False, "val/loss", -1)


def trial(strategy="none", threshold=None, seed=0, accuracy=0.9, val=None, **other):
    """One row as the store holds it."""
    arm = strategy if threshold is None else f"{strategy}@{threshold}"
    row = {"status": "finished", "arm": arm, "strategy": strategy, "threshold": threshold, "seed": seed}
    row |= {"data": "digits", "model": "mlp", "optimizer": "sgd", "lr": 0.1, "train.epochs": 20, "epochs": 20}
    row |= {"test/accuracy": accuracy, "val/accuracy": accuracy if val is None else val}
    row |= {"clip/fired_share": 0.4, "grad_norm/pre_p50": 0.93, "step_us": 53.0, "error": None} | other
    if row["status"] != "finished":
        row |= {"test/accuracy": np.nan, "val/accuracy": np.nan}
    setting = [row[key] for key in ("data", "model", "optimizer", "lr")]
    return {"id": f"{arm}/{seed}/{setting}"} | row


def noise(*key):
    return np.random.default_rng([abs(hash_of(part)) for part in key]).normal()


def hash_of(part):
    return int.from_bytes(str(part).encode()[-8:], "big")


def arm(strategy, threshold=None, *, gain=0.0, seeds=8, spread=0.004, **other):
    """An arm on every seed: the seed's luck, which all arms share, the gain, and noise of its own."""
    return [
        trial(
            strategy,
            threshold,
            seed,
            accuracy=0.93 + 0.01 * noise("luck", seed) + gain + spread * noise(strategy, threshold, seed),
            **other,
        )
        for seed in range(seeds)
    ]


def quickstart(seeds=8):
    """A baseline, a strategy that helps, one that harms, one that diverges, one that never fires."""
    rows = arm("none", seeds=seeds, **{"clip/fired_share": 0.0})
    for threshold, gain, fired in ((0.1, 0.0, 1.0), (0.5, 0.02, 0.62), (1.0, 0.03, 0.2), (5.0, 0.01, 0.0)):
        rows += arm("norm", threshold, gain=gain, seeds=seeds, **{"clip/fired_share": fired})
    for threshold, gain in ((0.001, -0.2), (0.00316228, -0.1), (0.01, -0.05)):
        rows += arm("value", threshold, gain=gain, seeds=seeds)
    rows += arm("norm(per=tensor)", 1.0, gain=0.028, seeds=seeds)
    rows += arm("skip", 100.0, seeds=seeds, spread=0.0, **{"clip/fired_share": 0.0})
    diverging = arm("zero", 0.01, gain=0.001, seeds=seeds)
    diverging[2] = trial("zero", 0.01, 2, status="diverged")
    return pd.DataFrame(rows + diverging)


def setting(rows, **options):
    (only,) = compare(pd.DataFrame(rows), ReportOptions(**options)).settings
    return only


def compare_rows(rows, **options):
    return setting(rows, **options)


def row(setting, name):
    (found,) = [row for row in setting.rows if row.arm == name]
    return found


def verdicts(setting):
    return {row.arm: row.verdict for row in setting.main}


def printed(report, width=80, **options):
    console = Console(width=width, file=io.StringIO(), **options)
    terminal.render(report, console)
    return console.file.getvalue()


# What is written


@pytest.mark.parametrize("seeds", [8, 3])
def test_terminal_says_what_it_said(seeds):
    check_golden(f"report/quickstart_{seeds}_seeds.txt", printed(compare(quickstart(seeds), name="quickstart")))


def test_markdown_says_what_it_said():
    check_golden("report/quickstart.md", markdown.render(compare(quickstart(), name="quickstart")))


def test_csv_says_what_it_said():
    lines = csv.reader(io.StringIO(csv_table.render(compare(quickstart()))))
    text = "\n".join(",".join(nine_digits(cell) for cell in line) for line in lines)
    check_golden("report/quickstart.csv", text)


def nine_digits(cell):
    """The last digits of a sum are the machine's own."""
    try:
        return f"{float(cell):.9g}"
    except ValueError:
        return cell


def test_two_settings_without_validation_data_say_what_they_said():
    rows = [
        {key: value for key, value in row.items() if not key.startswith("val/")}
        for optimizer, lr in (("sgd", 0.1), ("adam", 0.001))
        for row in [*arm("none", optimizer=optimizer, lr=lr), *arm("norm", 1.0, optimizer=optimizer, lr=lr)]
    ]
    check_golden("report/no_validation.txt", printed(compare(pd.DataFrame(rows), ReportOptions(margin=0.02))))


def test_terminal_fits_eighty_columns_and_is_plain_without_a_terminal():
    text = printed(compare(quickstart()))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "\x1b" in printed(compare(quickstart()), force_terminal=True)


def test_colour_is_never_alone():
    plain = printed(compare(quickstart()), no_color=True)
    for word in ("best on validation", "tied with best", "worse", "no difference shown", "baseline"):
        assert word in plain


@pytest.mark.parametrize("sign", ["=", "+", "-", "@"])
def test_no_text_in_csv_is_a_formula_and_numbers_stay_numbers(sign):
    rows = [row | {"arm": row["arm"].replace("norm", f"{sign}SUM(1)")} for row in quickstart().to_dict("records")]
    lines = list(csv.DictReader(io.StringIO(csv_table.render(compare(pd.DataFrame(rows))))))
    named = [line for line in lines if "SUM(1)" in line["arm"]]
    assert named and all(line["arm"].startswith(f"'{sign}") for line in named)
    assert any(line["difference_mean"].startswith("-") or float(line["difference_mean"] or 0) for line in lines)


def test_csv_has_every_arm_in_full_precision():
    report = compare(quickstart())
    lines = list(csv.DictReader(io.StringIO(csv_table.render(report))))
    assert [line["arm"] for line in lines] == [row.arm for row in report.settings[0].rows]
    assert [float(line["mean"]) for line in lines] == [row.value.mean for row in report.settings[0].rows]
    assert lines[0]["p"] == ""


def test_json_is_strict_and_whole():
    document_ = json.loads(json_report.render(compare(quickstart(), name="quickstart")), parse_constant=pytest.fail)
    (only,) = document_["settings"]
    assert document_["name"] == "quickstart"
    assert len(only["rows"]) == 11
    assert set(only["main"]) <= {row["arm"] for row in only["rows"]}


def test_users_names_do_not_become_markup():
    rows = arm("none") + arm("./my|[bold]<b>*.py:clip", 1.0)
    report = compare(pd.DataFrame(rows), name="a|b")
    assert "[bold]<b>" in printed(report, width=200)
    text = markdown.render(report)
    assert "./my\\|\\[bold\\]\\<b\\>\\*.py:clip@1.0" in text
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| ./my")}
    assert widths == {6, 8}  # no cell more than the tables have columns


def test_report_imports_neither_torch_nor_mlflow_nor_scipy_stats():
    code = (
        "import sys, clipbench.reporting.formats.terminal, clipbench.reporting.formats.markdown;"
        "sys.exit(' '.join(n for n in ('torch', 'mlflow', 'scipy.stats') if n in sys.modules) or None)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_thousand_trials_take_less_than_three_seconds():
    thresholds = np.geomspace(1e-3, 1e2, 12)
    rows = arm("none", seeds=9)
    for strategy in "abcdefghi":
        rows += [row for threshold in thresholds for row in arm(strategy, float(threshold), seeds=9)]
    frame = pd.DataFrame(rows)
    began = time.perf_counter()
    report = compare(frame)
    printed(report), markdown.render(report), csv_table.render(report), json_report.render(report)
    assert len(frame) > 950
    assert time.perf_counter() - began < 3  # 0.4 s on a quiet machine


def test_missing_golden_fails_and_says_how_to_write_it(monkeypatch):
    monkeypatch.delenv("CLIPBENCH_RENEW", raising=False)
    with pytest.raises(AssertionError, match=r"CLIPBENCH_RENEW=1 pytest 'tests/reporting/test_report.py::test_missing"):
        check_golden("report/never_written.txt", "something")


def test_records_read_back_from_parquet_give_the_same_report(tmp_path):
    frame = quickstart()
    frame.to_parquet(tmp_path / "records.parquet")
    again = compare(pd.read_parquet(tmp_path / "records.parquet").sample(frac=1, random_state=0))
    assert json_report.render(again) == json_report.render(compare(frame))


# What is concluded


def test_helping_strategy_is_best_and_its_equal_ties_and_harm_is_worse():
    only = setting(quickstart())
    assert verdicts(only) == {
        "none": "baseline",
        "norm@1.0": "best on validation",
        "norm(per=tensor)@1.0": "tied with best",
        "value@0.01": "worse",
        "skip@100.0": "no difference shown",
        "zero@0.01": "no difference shown",
    }
    assert "norm@1.0 is better than none" in headline.sentence(only)


def test_baseline_comes_first_then_best_to_worst():
    only = setting(quickstart())
    assert [row.arm for row in only.main][:2] == ["none", "norm@1.0"]
    assert only.main[-1].arm == "zero@0.01"  # it diverged


def test_threshold_is_chosen_on_validation_and_reported_on_test():
    rows = arm("none") + arm("norm", 1.0, gain=0.05, val=0.8) + arm("norm", 2.0, gain=0.01, val=0.9)
    assert [row.arm for row in setting(rows).main] == ["none", "norm@2.0"]


def test_numbers_are_those_that_scipy_gives_for_the_paired_seeds():
    frame = quickstart()
    only = setting(frame)
    test = frame.pivot(index="seed", columns="arm", values="test/accuracy")
    names = ["norm@1.0", "value@0.01", "norm(per=tensor)@1.0", "skip@100.0"]
    for name in names:
        d = test[name] - test["none"]
        contrast = row(only, name).contrast
        assert contrast.difference.mean == pytest.approx(d.mean(), abs=1e-12)
        expected = scipy_stats.ttest_rel(test[name], test["none"]).confidence_interval()
        assert (contrast.difference.low, contrast.difference.high) == pytest.approx(tuple(expected), abs=1e-9)
        exact = scipy_stats.permutation_test(
            (d.to_numpy(),), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
        )
        assert contrast.p == pytest.approx(exact.pvalue, abs=1e-12)
    p = sorted(row.contrast.p for row in only.main if row.contrast)
    assert row(only, "norm@1.0").contrast.p_holm == pytest.approx(min(p) * len(p))


def test_lower_is_better_for_a_loss_and_effects_are_turned():
    rows = [
        r | {"test/loss": 1 - r["test/accuracy"], "val/loss": 1 - r["val/accuracy"]}
        for r in arm("none") + arm("norm", 1.0, gain=0.03) + arm("norm", 2.0, gain=-0.03)
    ]
    only = setting(rows, metric="test/loss")
    assert verdicts(only) == {"none": "baseline", "norm@1.0": "better"}
    assert row(only, "norm@1.0").contrast.difference.mean > 0
    assert row(only, "norm@1.0").contrast.score.wins == 8
    assert row(only, "norm@1.0").criterion == pytest.approx(0.04, abs=0.02)


def test_users_metric_goes_the_way_it_is_told():
    rows = [r | {"test/risk": -r["test/accuracy"]} for r in arm("none") + arm("norm", 1.0, gain=0.03)]
    assert verdicts(setting(rows, metric="test/risk", higher={"risk": False}))["norm@1.0"] == "better"
    assert verdicts(setting(rows, metric="test/risk", higher={"risk": True}))["norm@1.0"] == "worse"
    with pytest.raises(InputError, match="higher"):
        setting(rows, metric="test/risk")


def test_unknown_metric_names_the_known_ones():
    with pytest.raises(InputError, match=r"Did you mean `test/accuracy`\? Known: .*val/accuracy"):
        setting(arm("none"), metric="test/acuracy")


def test_without_validation_data_all_thresholds_are_shown_and_none_is_best():
    rows = [
        {key: value for key, value in r.items() if not key.startswith("val/")}
        for r in arm("none") + arm("norm", 1.0, gain=0.03) + arm("norm", 2.0, gain=0.05)
    ]
    only = setting(rows)
    assert verdicts(only) == {"none": "baseline", "norm@2.0": "better", "norm@1.0": "better"}
    assert any("No trial has a finite val/accuracy" in note for note in notes.of_setting(only))


def test_objective_without_data_is_compared_by_its_own_loss():
    rows = [
        {key: value for key, value in r.items() if "accuracy" not in key}
        | {"data": None, "train/loss": 0.1 + 0.01 * noise(r["arm"], r["seed"])}
        for r in arm("none") + arm("norm", 1.0)
    ]
    only = setting(rows)
    assert (only.metric.name, only.metric.higher_is_better) == ("train/loss", False)
    assert only.words == "mlp/sgd"


def test_few_seeds_are_underpowered_and_told_how_many_it_takes():
    only = setting(arm("none", seeds=5) + arm("norm", 1.0, gain=0.1, seeds=5))
    assert verdicts(only)["norm@1.0"] == "underpowered"
    assert any("use at least 6 seeds" in note for note in notes.of_setting(only))


@pytest.mark.parametrize(("seeds", "words"), [(1, "1 seed is too few"), (3, "3 seeds are too few")])
def test_few_seeds_are_counted_in_words(seeds, words):
    assert words in headline.sentence(setting(arm("none", seeds=seeds) + arm("norm", 1.0, gain=0.1, seeds=seeds)))


def test_no_effect_needs_a_margin():
    rows = arm("none", spread=0.001) + arm("norm", 1.0, spread=0.001)
    assert verdicts(setting(rows))["norm@1.0"] == "no difference shown"
    assert verdicts(setting(rows, margin=0.02))["norm@1.0"] == "no effect"
    assert "clipping has no effect" in headline.sentence(setting(rows, margin=0.02))


def test_lucky_threshold_of_many_is_not_called_better():
    """Thirty equal thresholds, chosen by a validation metric that is the test metric."""
    rng = np.random.default_rng(22)
    rows = [trial("none", None, seed, rng.normal()) for seed in range(8)]
    rows += [trial("norm", float(t), seed, rng.normal()) for t in range(1, 31) for seed in range(8)]
    only = setting(rows)
    chosen = only.main[1]
    assert chosen.contrast.p_unchosen < 0.05 < chosen.contrast.p_holm
    assert chosen.verdict == "no difference shown"
    assert any("if the test repeats the selection of its threshold" in note for note in notes.of_setting(only))
    assert headline.sentence(only).endswith("p = 0.055 after correction for the choice of its threshold).")


@pytest.mark.parametrize("alike", [0.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_equal_arms_are_called_better_at_most_at_the_nominal_rate(alike):
    """3 strategies of 4 thresholds; `alike` is how closely validation and test move together."""
    rng = np.random.default_rng(0)
    wrong = [any(word in GOOD for word in verdicts(setting(equal_arms(rng, alike))).values()) for _ in range(120)]
    assert np.mean(wrong) <= 0.05


def equal_arms(rng, alike):
    arms = [("none", None), *((strategy, float(t)) for strategy in "abc" for t in range(4))]
    return [
        trial(*names, seed, accuracy=test, val=alike * test + (1 - alike) * rng.normal())
        for names in arms
        for seed in range(8)
        for test in [rng.normal()]
    ]


# Divergence


def diverged(strategy, threshold, seeds, **other):
    return [trial(strategy, threshold, seed, status="diverged", **other) for seed in seeds]


def test_arm_that_diverged_more_often_ranks_below_whatever_its_mean():
    rows = arm("none") + arm("norm", 1.0)
    rows += arm("norm", 9.0, gain=0.05, seeds=7) + diverged("norm", 9.0, [7])
    assert [row.arm for row in setting(rows).main] == ["none", "norm@1.0"]


def test_strategy_that_saves_a_diverging_baseline_is_best():
    only = setting(diverged("none", None, range(8)) + arm("norm", 1.0))
    assert verdicts(only)["norm@1.0"] == "better"
    contrast = row(only, "norm@1.0").contrast
    assert contrast.p == 2 / 2**8
    assert (contrast.score.wins, contrast.pairs, contrast.difference.n) == (8, 8, 0)
    assert "diverged on 0 of 8 seeds against 8 of 8" in headline.sentence(only)


def test_strategy_that_always_diverges_is_worse():
    only = setting(arm("none") + diverged("norm", 1.0, range(8)))
    assert verdicts(only)["norm@1.0"] == "worse"
    assert row(only, "norm@1.0").flags == ("diverged on 8 of 8",)


def test_one_divergence_forbids_to_call_a_strategy_better():
    rows = arm("none") + arm("norm", 1.0, gain=0.1)
    rows[8] = trial("norm", 1.0, 0, status="diverged")
    assert verdicts(setting(rows))["norm@1.0"] not in GOOD


def test_trials_that_stopped_early_are_counted():
    rows = arm("none") + arm("norm", 1.0)
    assert not any("stopped early" in note for note in notes.of_setting(setting(rows)))
    for epoch, one in zip((4, 4, 9), rows, strict=False):
        one["stopped_epoch"] = epoch
    assert "3 of 16 trials stopped early, after epoch 4 to 9; their curves end there." in notes.of_setting(
        setting(rows)
    )


def test_where_both_diverged_they_tie():
    only = setting(diverged("none", None, range(8)) + diverged("norm", 1.0, range(8)))
    assert row(only, "norm@1.0").contrast.score.ties == 8
    assert row(only, "norm@1.0").contrast.p == 1.0
    assert "every trial diverged (16 trials)" in headline.sentence(only)


def test_rule_for_diverged_trials_is_said_where_it_was_needed():
    assert any("A diverged trial ranks below" in note for note in notes.of_setting(setting(quickstart())))
    assert not any("diverged" in note for note in notes.of_setting(setting(arm("none") + arm("norm", 1.0))))


def test_verdict_that_the_rule_for_diverged_trials_decides_is_said():
    rows = arm("none") + arm("norm", 1.0, gain=0.1) + arm("a", 1.0)
    rows[8] = trial("norm", 1.0, 0, status="diverged")
    only = setting(rows)
    assert [(each.arm, each.verdict, each.verdict_without) for each in only.otherwise] == [
        ("norm@1.0", "no difference shown", "better")
    ]
    note = "If diverged trials were left out instead, verdicts would change. norm@1.0: better instead of no difference shown."
    assert note in notes.of_setting(only)
    assert note in printed(compare(pd.DataFrame(rows)), width=200)


def test_threshold_that_only_its_divergence_kept_from_being_chosen_is_named():
    rows = arm("none") + arm("norm", 1.0) + arm("norm", 9.0, gain=0.05)[1:] + diverged("norm", 9.0, [0])
    only = setting(rows)
    (change,) = only.otherwise
    assert (change.arm, change.arm_without, change.verdict_without) == ("norm@1.0", "norm@9.0", "better")
    assert any(
        note.endswith("norm@1.0, then norm@9.0: better instead of no difference shown.")
        for note in notes.of_setting(only)
    )


def test_verdicts_that_do_not_depend_on_the_rule_are_said_in_a_sentence_and_without_divergence_nothing():
    assert setting(quickstart()).otherwise == ()
    assert "If diverged trials were left out instead, no verdict would change." in notes.of_setting(
        setting(quickstart())
    )
    assert setting(arm("none") + arm("norm", 1.0)).otherwise is None


@pytest.mark.parametrize(("baseline", "other"), [("diverged", "fine"), ("fine", "diverged"), ("diverged", "diverged")])
def test_rule_is_asked_for_also_where_a_whole_arm_diverged(baseline, other):
    """Without its trials there is no baseline, or no arm; that is a change of the verdict too."""
    make = {"fine": arm, "diverged": lambda *names: diverged(*names, range(8))}
    only = setting(make[baseline]("none", None) + make[other]("norm", 1.0))
    found = {each.arm: each.verdict_without for each in only.otherwise}
    assert found["norm@1.0"] == ("no baseline" if baseline == "diverged" else "no finished trials")


# Flags


def test_flags_say_what_a_threshold_does():
    rows = arm("none", **{"clip/fired_share": 0.0})
    rows += arm("a", 1.0, **{"clip/fired_share": 0.0}) + arm("b", 1.0, **{"clip/fired_share": 0.97})
    rows += arm("normalize", **{"clip/fired_share": 1.0})
    only = setting(rows)
    assert row(only, "none").flags == ()
    assert row(only, "a@1.0").flags == ("never clipped",)
    assert row(only, "b@1.0").flags == ("clips > 95 % of steps",)
    assert row(only, "normalize").flags == ()


def test_a_rule_that_refuses_nearly_all_steps_is_not_called_a_learning_rate():
    fired = {"clip/fired_share": 0.97}
    rows = arm("none") + arm("drop", 1.0, **fired, **{"clip/cosine": 0.03})
    only = setting(rows + arm("norm", 1.0, **fired, **{"clip/cosine": 1.0}) + arm("value", 1.0, **fired))
    found = {name: row(only, f"{name}@1.0").flags for name in ("drop", "norm", "value")}
    assert found["drop"] == ("refuses > 95 % of steps",)
    assert found["norm"] == found["value"] == ("clips > 95 % of steps",)


def test_best_threshold_at_the_end_of_its_range_is_flagged():
    rows = arm("none") + [r for t, gain in ((1.0, 0.05), (2.0, 0.0), (3.0, 0.0)) for r in arm("a", t, gain=gain)]
    rows += [r for t, gain in ((1.0, 0.0), (2.0, 0.05), (3.0, 0.0)) for r in arm("b", t, gain=gain)]
    only = setting(rows)
    assert row(only, "a@1.0").flags == ("best at the edge of the range",)
    assert row(only, "b@2.0").flags == ()


def test_of_thresholds_that_never_fire_the_smallest_is_taken_and_is_no_edge():
    rows = arm("none") + [r for t in (1.0, 2.0, 3.0) for r in arm("a", t, spread=0.0, **{"clip/fired_share": 0.0})]
    assert setting(rows).main[-1].arm == "a@1.0" or setting(rows).main[1].arm == "a@1.0"
    assert row(setting(rows), "a@1.0").flags == ("never clipped",)


# Settings


def test_axes_make_settings_and_options_of_one_component_do_not():
    rows = [
        r
        for options in (
            {"optimizer": "sgd", "lr": 0.1, "optimizer.momentum": 0.9},
            {"optimizer": "sgd", "lr": 0.01, "optimizer.momentum": 0.9},
            {"optimizer": "adam", "lr": 0.001, "optimizer.momentum": None},
        )
        for r in arm("none", **options) + arm("norm", 1.0, **options)
    ]
    report = compare(pd.DataFrame(rows))
    labels = [setting.label for setting in report.settings]
    assert labels == ["optimizer=adam, lr=0.001", "optimizer=sgd, lr=0.01", "optimizer=sgd, lr=0.1"]
    assert [setting.words for setting in report.settings][1] == "digits with mlp/sgd (lr=0.01)"
    assert all(len(setting.rows) == 2 for setting in report.settings)


def test_single_setting_has_no_label():
    assert setting(quickstart()).axes == {}


def test_default_metric_is_each_settings_own():
    regression = [
        {key: value for key, value in r.items() if "accuracy" not in key}
        | {"data": "diabetes", "test/mse": 1 - r["test/accuracy"], "val/mse": 1 - r["val/accuracy"]}
        for r in arm("none") + arm("norm", 1.0)
    ]
    report = compare(pd.DataFrame(arm("none") + arm("norm", 1.0) + regression))
    assert [setting.metric.name for setting in report.settings] == ["test/mse", "test/accuracy"]


def test_a_seed_whose_folds_are_not_all_there_is_left_out():
    rows = [
        {**r, "id": f"{r['id']}{fold}", "data.fold": float(fold)}
        for r in arm("none") + arm("norm", 1.0, gain=0.01)
        for fold in range(3)
    ]
    short = [r for r in rows if not (r["arm"] == "norm@1.0" and r["seed"] == 3 and r["data.fold"] == 1)]
    found = setting(short)
    assert row(found, "norm@1.0").trials == row(found, "norm@1.0").contrast.pairs == 7
    assert row(found, "none").trials == 8


@pytest.mark.parametrize("incomplete", [{"norm"}, {"none"}, {"none", "norm"}])
def test_an_arm_none_of_whose_seeds_has_all_its_folds_has_no_number(incomplete):
    """What an interrupted cross-validation leaves."""
    rows = [
        trial(strategy, seed=seed, accuracy=0.9, id=f"{strategy}{seed}{fold}", **{"data.fold": fold})
        for strategy in ("none", "norm")
        for seed in range(4)
        for fold in range(3 if strategy not in incomplete else seed % 3)
    ] + [trial("value", seed=0, **{"data.fold": 2})]
    found = setting(rows)
    numbers = {each.arm: (each.trials, bool(np.isnan(each.value.mean))) for each in found.rows}
    assert numbers == {name: (0, True) if name in incomplete else (4, False) for name in ("none", "norm")} | {
        "value": (0, True)
    }
    assert GOOD.isdisjoint(verdicts(found).values())


def test_folds_are_averaged_within_their_seed():
    one = arm("none") + arm("norm", 1.0, gain=0.01)
    folds = [
        r | {"id": f"{r['id']}{fold}", "data.fold": fold, "test/accuracy": r["test/accuracy"] + shift}
        for r in one
        for fold, shift in enumerate((-0.1, 0.0, 0.1))
    ]
    plain, folded = setting(one), setting(folds)
    assert row(folded, "norm@1.0").contrast.pairs == 8
    assert row(folded, "norm@1.0").contrast.difference.low == pytest.approx(
        row(plain, "norm@1.0").contrast.difference.low
    )
    assert any("folds" in note for note in notes.of_setting(folded))


@pytest.mark.parametrize("mean", [-1e-17, -0.0, 0.0, 4e-6])
def test_what_rounds_to_zero_has_no_side(mean):
    value = Estimate(mean, mean - 0.002, mean + 0.002, 8)
    assert formatting.estimate(value, ACCURACY, signed=True) == "+0.00 ± 0.20"
    assert formatting.interval(value, ACCURACY) == "+0.00 pp [-0.20, +0.20]"
    assert formatting.effect(mean) == "+0.00"


# Nothing is left out without saying so


def test_the_trials_of_an_error_are_named_together():
    rows = arm("none") + arm("norm", 1.0)
    for number, error in {9: "out of memory", 10: "no file", 12: "out of memory"}.items():
        rows[number] |= {"status": "failed", "error": f"RuntimeError: {error}.", "test/accuracy": np.nan}
    said = " ".join(notes.of_report(compare(pd.DataFrame(rows))))
    assert "2 trials failed with an error; rerun the command to retry: norm@1.0 seed 1, norm@1.0 seed 4 (" in said
    assert said.count("RuntimeError: out of memory") == said.count("(RuntimeError: no file)") == 1


def test_failed_missing_and_foreign_trials_are_counted_and_named():
    rows = arm("none") + arm("norm", 1.0)
    rows[9] |= {
        "status": "failed",
        "error": "Traceback\nRuntimeError: out of memory",
        "test/accuracy": np.nan,
    }
    planned = {r["id"]: f"{r['arm']} seed {r['seed']}" for r in rows} | {"x": "norm@1.0 seed 8"}
    foreign = [r | {"id": f"{r['id']}old"} for r in arm("value", 3.0)]
    report = compare(pd.DataFrame(rows + foreign), ReportOptions(planned=planned))
    assert notes.of_report(report) == (
        "1 trial failed with an error; rerun the command to retry: norm@1.0 seed 1 (RuntimeError: out of memory).",
        "1 trial not trained yet: norm@1.0 seed 8.",
        "The results folder also contains 8 trials that are not part of this YAML; they are not shown.",
    )
    (only,) = report.settings
    assert {row.strategy for row in only.rows} == {"none", "norm"}
    assert "Fewer than 8 pairs of seeds: norm@1.0 7." in notes.of_setting(only)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e200])
@pytest.mark.parametrize("measure", ["test/accuracy", "val/accuracy"])
def test_finished_trial_without_a_finite_metric_or_criterion_ranks_last(measure, value):
    rows = arm("none") + arm("norm", 1.0, gain=0.03)
    assert verdicts(setting(rows))["norm@1.0"] == "better"
    rows[9][measure] = value
    only = setting(rows)
    found = row(only, "norm@1.0")
    assert (found.value.n, found.diverged, found.nonfinite, found.verdict) == (7, 1, 1, "no difference shown")
    assert found.contrast.score.losses == 1
    said = "Finished trials with an infinite or NaN test/accuracy or val/accuracy count as diverged: norm@1.0 1 of 8."
    assert said in notes.of_setting(only)


# What a verdict may say


def test_only_arm_that_is_better_is_not_called_the_best():
    """The others are not shown to be worse than it."""
    only = setting(arm("none") + arm("norm", 1.0, gain=0.03) + arm("value", 1.0))
    assert verdicts(only) == {"none": "baseline", "norm@1.0": "better", "value@1.0": "no difference shown"}


def test_best_is_shown_to_be_better_than_all_others_that_help():
    only = setting(arm("none") + arm("norm", 1.0, gain=0.06) + arm("value", 1.0, gain=0.03))
    assert verdicts(only) == {"none": "baseline", "norm@1.0": "best", "value@1.0": "better"}


def test_p_in_the_table_is_the_one_that_decides():
    rng = np.random.default_rng(22)
    rows = [trial("none", None, seed, rng.normal()) for seed in range(8)]
    rows += [trial("norm", float(t), seed, rng.normal()) for t in range(1, 31) for seed in range(8)]
    only = setting(rows)
    (_, shown) = texts(comparison_tables.comparison(only))
    assert shown[3:] == ["0.055", "no difference shown"]


def test_same_weights_are_no_effect_without_a_margin():
    base = [r | {"weight_norm": 1.0 + r["seed"]} for r in arm("none")]
    twin = [r | {"strategy": "skip", "arm": "skip@9", "threshold": 9.0, "id": f"skip{r['seed']}"} for r in base]
    only = setting(base + twin)
    assert verdicts(only)["skip@9"] == "no effect"
    assert headline.sentence(only) == (
        "On digits with mlp/sgd, clipping has no effect: every strategy trains to the same weights as none (8 seeds)."
    )
    assert answer.answer(only).verdict == "no effect"


def test_best_difference_of_the_same_weights_is_said_to_be_that():
    base = [r | {"weight_norm": 1.0 + r["seed"]} for r in arm("none")]
    twin = [r | {"strategy": "skip", "arm": "skip@9", "threshold": 9.0, "id": f"skip{r['seed']}"} for r in base]
    worse = arm("norm", 1.0, gain=-0.1)
    assert "by skip@9, p = 1.00, the same weights" in headline.sentence(setting(base + twin + worse))


def test_seeds_on_which_both_diverge_do_not_count_as_seeds():
    rows = arm("none")[:3] + diverged("none", None, range(3, 8))
    rows += arm("norm", 1.0, gain=0.1)[:3] + diverged("norm", 1.0, range(3, 8))
    only = setting(rows)
    assert verdicts(only)["norm@1.0"] == "underpowered"
    assert any(
        note.startswith("Arms that differ from none on too few seeds: norm@1.0 on 3 of 8. To reach p < 0.05")
        and "6 must differ" in note
        for note in notes.of_setting(only)
    )


def test_tie_of_all_thresholds_is_no_best_at_the_edge():
    rows = arm("none", spread=0.0) + [r for t in (0.1, 1.0, 10.0) for r in arm("norm", t, spread=0.0)]
    assert verdict.AT_EDGE not in row(setting(rows), "norm@0.1").flags
    alone = arm("norm", 0.1, gain=0.1, spread=0.0)
    assert verdict.AT_EDGE in row(setting(arm("none", spread=0.0) + alone + rows[16:]), "norm@0.1").flags


def test_several_tables_say_what_they_multiply():
    """The same strong effect in one of three tables, and nothing in the others."""
    gains = {0.01: 0.0, 0.1: 0.05, 1.0: 0.0}
    rows = [
        r
        for lr, gain in gains.items()
        for r in arm("none", lr=lr) + arm("norm", 1.0, gain=gain, lr=lr, spread=0.002 + lr / 1000)
    ]
    report = compare(pd.DataFrame(rows))
    p = [row(each, "norm@1.0").contrast for each in report.settings]
    assert [each.p_overall for each in p] == stats.holm([each.p_choice for each in p]).tolist()
    assert p[1].p_overall == pytest.approx(3 * p[1].p_holm) and p[1].p_overall < 0.05
    assert any(
        note.startswith("3 comparison tables test 3 differences, each table corrected on its own.")
        and "that is 14 %" in note
        and note.endswith(", 1 of 1 verdict of better or worse remains so.")
        for note in notes.of_report(report)
    )
    assert "p (overall)" in printed(report)
    (alone,) = compare(pd.DataFrame([r for r in rows if r["lr"] == 0.1])).settings
    assert np.isnan(row(alone, "norm@1.0").contrast.p_overall)
    assert "p (overall)" not in [column.header for column in comparison_tables.comparison(alone).columns]


def test_data_too_small_for_the_margin_are_said():
    rows = [r | {"fingerprint": "x"} for r in arm("none") + arm("norm", 1.0)]
    said = "One example changes a seed's value by more than the margin of ±0.5 pp: test/accuracy by 2.78 pp. Use more"
    for size, is_said in ((36, True), (360, False)):
        found = notes.of_setting(setting(rows, margin=0.005, examples={"x": {"test": size, "val": 5000}}))
        assert any(note.startswith(said) for note in found) == is_said


def test_number_of_tables_that_makes_any_verdict_impossible_is_said():
    rows = [r for lr in np.geomspace(0.01, 1, 8) for r in arm("none", lr=lr) + arm("norm", 1.0, gain=0.1, lr=lr)]
    (note, *_) = notes.of_report(compare(pd.DataFrame(rows)))
    assert note.endswith("0 of 8 verdicts of better or worse remain so. With 8 seeds none can; 9 are necessary.")


def test_arms_that_are_orders_of_magnitude_worse_do_not_tie_with_the_best():
    """Their differences are spread over many orders too: the mean square of one seed is nearly all of the sum."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(8):
        losses = {
            "none": 1e12,
            "norm": 0.5,
            "value": 1e5 * np.exp(3 * rng.normal()),
            "skip": 1e9 * np.exp(3 * rng.normal()),
        }
        losses["none"] *= np.exp(rng.normal())
        rows += [trial(name, None if name == "none" else 1.0, seed, -loss) for name, loss in losses.items()]
    found = verdicts(setting(rows))
    assert (found["norm@1.0"], found["value@1.0"], found["skip@1.0"]) == ("best", "better", "better")


def test_end_of_an_interval_near_zero_keeps_its_sign():
    assert formatting.interval(Estimate(0.17, -0.0042, 0.337, 8), ACCURACY) == "+17.0 pp [-0.4, +33.7]"
    assert formatting.interval(Estimate(0.17, 0.0, 0.337, 8), ACCURACY) == "+17 pp [+0, +34]"


def test_undecided_arms_say_how_many_seeds_they_take():
    rng = np.random.default_rng(1)
    rows = [trial("none", None, seed, 0.9 + 0.01 * rng.normal()) for seed in range(8)]
    rows += [trial("norm", 1.0, seed, 0.907 + 0.01 * rng.normal()) for seed in range(8)]
    only = setting(rows)
    found = row(only, "norm@1.0").contrast
    assert found.seeds_needed == stats.seeds_for_power(found.dz)
    assert any(
        note.endswith(f"norm@1.0 {found.seeds_needed:.0f} (more than 10,000).") for note in notes.of_setting(only)
    )


def test_measure_that_no_trial_has_breaks_none():
    only = setting([r | {"val/accuracy": np.nan} for r in arm("none") + arm("norm", 1.0, gain=0.03)])
    assert (row(only, "norm@1.0").diverged, verdicts(only)["norm@1.0"]) == (0, "better")


def test_broken_threshold_does_not_block_its_strategy():
    """One without a finite criterion on any seed, one that was trained on two seeds only: the third is the best."""
    broken = [r | {"val/accuracy": np.nan} for r in arm("norm", 2.0, gain=0.1)]
    short = arm("norm", 3.0, gain=0.1)[:2]
    only = setting(arm("none") + arm("norm", 1.0, gain=0.03) + broken + short)
    assert verdicts(only) == {"none": "baseline", "norm@1.0": "better"}
    assert "Not chosen from, because they lack seeds that others of their strategy have: norm@3.0 2 of 8." in (
        notes.of_setting(only)
    )
    assert row(only, "norm@1.0").contrast.p_choice == pytest.approx(2 / 2**8)


def test_of_thresholds_that_lack_different_seeds_those_like_the_first_are_candidates():
    rows = arm("none") + arm("norm", 1.0)[1:] + arm("norm", 2.0, gain=0.1)[:-1] + arm("norm", 3.0, gain=0.01)[1:]
    only = setting(rows)
    assert {each.arm for each in only.rows if not each.is_candidate} == {"norm@2.0"}
    assert list(verdicts(only)) == ["none", "norm@3.0"]


def test_missing_baseline_is_said_and_nothing_is_compared():
    only = setting(arm("norm", 1.0) + arm("value", 1.0), baseline="none")
    assert set(verdicts(only).values()) == {"no baseline"}
    assert any("baseline `none` cannot be used" in note for note in notes.of_setting(only))
    printed(compare(pd.DataFrame(arm("norm", 1.0))))


def test_baseline_may_be_one_arm():
    only = setting(quickstart(), baseline="norm@5.0")
    assert only.main[0].arm == "norm@5.0"
    assert verdicts(only)["none"] in {"worse", "no difference shown"}
    assert "norm@1.0" in verdicts(only)


@pytest.mark.parametrize("frame", [pd.DataFrame(), pd.DataFrame(arm("none")[:0])])
def test_nothing_trained_is_said(frame):
    report = compare(frame, ReportOptions(metric="test/accuracy", planned={"a": "none seed 0"}))
    assert report.settings == ()
    assert notes.of_report(report) == ("No trial of this experiment has been trained yet.",)
    printed(report), markdown.render(report), csv_table.render(report), json_report.render(report)


def test_only_failed_trials_are_named():
    report = compare(pd.DataFrame([r | {"status": "failed"} for r in arm("none")]))
    assert report.settings == ()
    assert "8 trials failed" in notes.of_report(report)[0]
    assert "and 3 more" in notes.of_report(report)[0]


def test_one_seed_has_no_interval_and_still_prints():
    only = setting(arm("none", seeds=1) + arm("norm", 1.0, seeds=1))
    assert np.isnan(only.main[1].value.low)
    assert verdicts(only)["norm@1.0"] == "underpowered"
    assert "nan" not in printed(compare(pd.DataFrame(arm("none", seeds=1) + arm("norm", 1.0, seeds=1))))


def test_target_counts_those_that_never_reached_it():
    epochs = [5, 6, 7, np.nan, 9, 10, np.nan, np.nan]
    rows = [r | {"epochs_to_target": e} for r, e in zip(arm("none"), epochs, strict=True)]
    assert row(setting(rows), "none").reach == TargetEpochs(9.5, 5, 8, (5 + 6 + 7 + 9 + 10 + 3 * 20) / 8)
    never = [r | {"epochs_to_target": np.nan, "train.target": "x"} for r in arm("none")]
    assert formatting.reach(row(setting(never), "none").reach) == "never (8/8)"
    assert row(setting(arm("none")), "none").reach is None


def reaching():
    """Clipping reaches the target on every seed, no clipping on half of them; one trial of it diverges."""
    target = '["val/accuracy", 0.95]'
    rows = [r | {"epochs_to_target": 12.0 + r["seed"] if r["seed"] < 4 else np.nan} for r in arm("none")]
    rows[7] = trial("none", None, 7, status="diverged", epochs_to_target=np.nan)
    rows += [r | {"epochs_to_target": 3.0 + r["seed"]} for r in arm("norm", 1.0, gain=0.02)]
    return [r | {"train.target": target} for r in rows]


def texts(table):
    """What each row of a table says."""
    return [[cell.text for cell in row] for row in table.cells]


def test_table_of_the_target_counts_everybody_and_says_what_it_means():
    (only,) = compare(pd.DataFrame(reaching())).settings
    table = comparison_tables.target(only)
    assert table.title == "Epochs to the target: val/accuracy 0.95"
    assert [column.header for column in table.columns] == [
        "arm",
        "reached",
        "median",
        "restricted mean",
        "p (log-rank)",
    ]
    assert texts(table) == [
        ["none", "4 of 8", "never (4/8)", "16.8", "-"],
        ["norm@1.0", "8 of 8", "6.5", "6.50", "<0.001"],
    ]
    assert all(len(column.meaning) > 20 for column in table.columns)
    report = compare(pd.DataFrame(reaching()), name="study")
    check_golden("report/target.txt", printed(report))
    assert "log-rank" in markdown.render(report) and "epochs_to_target_restricted_mean" in csv_table.render(report)


def test_a_seed_reaches_the_target_only_with_all_of_its_folds():
    """Of the baseline, every seed has a fold that reached it, and only seed 0 all three."""
    rows = [
        {**r, "id": f"{r['id']}{fold}", "data.fold": fold, "train.target": '["val/accuracy", 0.95]'}
        | {"epochs_to_target": 4.0 + fold if is_reached(r["arm"], r["seed"], fold) else np.nan}
        for r in arm("none") + arm("norm", 1.0)
        for fold in range(3)
    ]
    rows[5] = rows[5] | {"status": "diverged", "epochs_to_target": 2.0}  # a diverged trial does not reach it
    only = setting(rows)
    base, other = row(only, "none"), row(only, "norm@1.0")
    assert base.reach == TargetEpochs(np.inf, 1, 8, (5.0 + 7 * 20) / 8)
    assert other.reach == TargetEpochs(5.0, 8, 8, 5.0)
    none = scipy_stats.CensoredData(uncensored=[5.0], right=np.full(7, 20.0))
    norm = scipy_stats.CensoredData(uncensored=np.full(8, 5.0))
    assert other.contrast.p_reach == pytest.approx(scipy_stats.logrank(norm, none).pvalue)
    assert "a seed reaches the target if all of its folds do" in " ".join(notes.of_setting(only))


def is_reached(name, seed, fold):
    return name != "none" or seed == 0 or fold == 0


def test_without_a_target_there_is_no_table_of_it():
    (only,) = compare(quickstart()).settings
    assert [table.name for table in comparison_tables.tables(only)] == ["comparison", "training", "everything"]


def test_mean_epochs_to_target_is_never_over_survivors_alone():
    rows = [
        r | {"epochs_to_target": np.nan if r["strategy"] == "norm" and r["seed"] > 1 else 10.0}
        for r in arm("none") + arm("norm", 1.0)
    ]
    only = setting(rows, metric="epochs_to_target")
    assert row(only, "norm@1.0").value.mean == (2 * 10 + 6 * 21) / 8
    assert verdicts(only)["norm@1.0"] == "worse"
    assert "never reached the target" in printed(compare(pd.DataFrame(rows), ReportOptions(metric="epochs_to_target")))


def test_an_arm_has_the_name_that_the_store_has():
    rows = arm("none") + arm("norm", 0.000316228)
    rows += [r | {"arm": "norm@off", "id": f"off{r['seed']}"} for r in arm("norm")]
    labels = {row.arm for row in setting(rows).rows}
    assert labels == {"none", "norm@0.000316228", "norm@off"}


# Numbers


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (Estimate(0.97412, 0.97202, 0.97622, 8), ACCURACY, "97.41 ± 0.21"),
        (Estimate(0.9, 0.8, 1.0, 8), ACCURACY, "90 ± 10"),
        (Estimate(0.5, np.nan, np.nan, 1), ACCURACY, "50.00"),
        (Estimate(1.0, 1.0, 1.0, 8), ACCURACY, "100.0 ± 0.0"),
        (Estimate(0.02345, 0.02305, 0.02385, 8), LOSS, "0.02345 ± 0.00040"),
        (Estimate(2.3e-12, 2.2e-12, 2.4e-12, 8), LOSS, "2.3e-12 ± 1e-13"),
        (Estimate(np.nan, np.nan, np.nan, 0), LOSS, "-"),
        (Estimate(7e-9, -0.004, 0.004, 8), ACCURACY, "0.00 ± 0.40"),
    ],
)
def test_estimates_have_the_digits_that_their_interval_supports(value, metric, text):
    assert formatting.estimate(value, metric) == text


@pytest.mark.parametrize(
    ("p", "text"), [(0.0002, "<0.001"), (0.0234, "0.023"), (0.41, "0.41"), (1.0, "1.00"), (np.nan, "-")]
)
def test_p_values_are_short(p, text):
    assert formatting.p_value(p) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 %"), (0.0001, "<0.1 %"), (0.5, "50.0 %"), (0.9999, ">99.9 %"), (1.0, "100 %"), (np.nan, "-")],
)
def test_shares_round_to_none_or_all_only_if_they_are(value, text):
    assert formatting.share(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(53.02, "53.0"), (0.9326, "0.933"), (1234.5, "1234"), (0.0, "0"), (1e-7, "1e-07")]
)
def test_plain_numbers_have_three_digits(value, text):
    assert formatting.number(value) == text


# Second opinions


def test_second_opinions_are_scipys():
    frame = quickstart()
    only = setting(frame)
    test = frame.pivot(index="seed", columns="arm", values="test/accuracy")
    d = (test["norm@1.0"] - test["none"]).to_numpy()
    contrast = row(only, "norm@1.0").contrast
    expected = scipy_stats.bootstrap((d,), np.mean, method="BCa", rng=np.random.default_rng(0)).confidence_interval
    assert (contrast.bootstrap.low, contrast.bootstrap.high) == pytest.approx(tuple(expected), rel=1e-9)
    assert contrast.p_wilcoxon == pytest.approx(scipy_stats.wilcoxon(d).pvalue)
    assert row(only, "zero@0.01").contrast.p_diverged == pytest.approx(1.0)


def test_target_is_compared_by_the_log_rank_test_and_none_without_a_target():
    rows = [r | {"epochs_to_target": 5.0 + r["seed"]} for r in arm("none")]
    rows += [r | {"epochs_to_target": np.nan if r["seed"] > 4 else 15.0} for r in arm("norm", 1.0)]
    found = row(setting(rows), "norm@1.0").contrast.p_reach
    none = scipy_stats.CensoredData(uncensored=np.arange(5.0, 13.0))
    norm = scipy_stats.CensoredData(uncensored=np.full(5, 15.0), right=np.full(3, 20.0))
    assert found == pytest.approx(scipy_stats.logrank(norm, none).pvalue)
    assert np.isnan(row(setting(arm("none") + arm("norm", 1.0)), "norm@1.0").contrast.p_reach)


def test_luck_of_the_choice_is_taken_out_by_choosing_on_the_other_seeds():
    """Thirty equal thresholds whose test metric chooses them flatter themselves; the nested difference does not."""
    rng = np.random.default_rng(22)
    found = []
    for _ in range(30):
        rows = [trial("none", None, seed, rng.normal()) for seed in range(8)]
        rows += [trial("norm", float(t), seed, rng.normal()) for t in range(1, 13) for seed in range(8)]
        contrast = setting(rows).main[1].contrast
        found.append((contrast.difference.mean, contrast.nested))
    flattered, nested = np.mean(found, axis=0)
    assert abs(nested) < 0.2 < 0.4 < flattered


def test_single_threshold_has_no_choice_to_take_out():
    assert np.isnan(row(setting(arm("none") + arm("norm", 1.0)), "norm@1.0").contrast.nested)


def test_bootstrap_that_holds_zero_is_said_where_t_does_not():
    only = setting(arm("none") + arm("norm", 1.0, gain=0.02))
    (shown,) = [each for each in only.main if each.contrast]
    wide = dataclasses.replace(shown.contrast, bootstrap=Estimate(0.02, -0.01, 0.05, 8))
    changed = dataclasses.replace(only, main=(only.main[0], dataclasses.replace(shown, contrast=wide)))
    (note,) = set(certainty_notes.of_setting(changed)) - set(certainty_notes.of_setting(only))
    assert note == "norm@1.0: the bootstrap interval (BCa), +2.0 pp [-1.0, +5.0], contains 0; the t interval does not."
    assert not any("contains 0" in note for note in certainty_notes.of_setting(only))


@pytest.mark.parametrize(
    ("low", "p", "unchosen", "says"),
    [
        (0.01, 0.06, 0.06, True),
        (-0.01, 0.01, 0.01, True),
        (0.01, 0.01, 0.01, False),
        (-0.01, 0.06, 0.06, False),
        (0.01, 0.06, 0.01, False),
        (0.01, np.nan, np.nan, False),
    ],
)
def test_an_interval_that_says_other_than_p_is_explained(low, p, unchosen, says):
    only = setting(arm("none") + arm("norm", 1.0, gain=0.02))
    (shown,) = [each for each in only.main if each.contrast]
    found = dataclasses.replace(shown.contrast, difference=Estimate(0.02, low, 0.05, 8), p_holm=p, p_unchosen=unchosen)
    changed = dataclasses.replace(only, main=(only.main[0], dataclasses.replace(shown, contrast=found)))
    said = [
        note
        for note in certainty_notes.of_setting(changed)
        if "disagree whether there is a difference: norm@1.0." in note
    ]
    assert len(said) == says
