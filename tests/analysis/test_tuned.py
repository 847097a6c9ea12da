"""Each strategy at its own best learning rate and threshold, beside the comparison at equal learning rates."""

import numpy as np
import pandas as pd
import pytest

from clipbench import config
from clipbench.analysis import curves
from clipbench.analysis.strategy_ranks import combine
from clipbench.errors import InputError
from clipbench.reporting import ReportOptions, compare, figures, headline, notes
from clipbench.reporting.combined import size
from clipbench.reporting.formats import csv_table, html, json_report, latex, markdown
from tests.golden_files import check_golden
from tests.reporting.test_figures import stored
from tests.reporting.test_report import GOOD, arm, diverged, printed, row, trial, verdicts


def rescue(**other):
    """Clipping saves a learning rate that is too high, and is worth nothing at the right one."""
    gains = {0.01: (-0.1, -0.1), 0.1: (0.0, 0.0), 1.0: (-0.3, -0.01), 3.0: (-0.5, -0.2)}
    return [
        r
        for lr, (alone, clipped) in gains.items()
        for r in arm("none", gain=alone, lr=lr, **other)
        + [r for t in (0.1, 1.0, 5.0) for r in arm("norm", t, gain=clipped - 0.01 * abs(t - 1), lr=lr, **other)]
    ]


def tuned(rows, **options):
    report = compare(pd.DataFrame(rows), ReportOptions(tuned=True, **options), name="study")
    return next(setting for setting in report.settings if setting.tuned), report


def test_each_strategy_stands_at_its_own_best_learning_rate_and_threshold():
    only, _ = tuned(rescue())
    assert [each.arm for each in only.main] == ["none (lr=0.1)", "norm@1.0 (lr=0.1)"]
    assert only.tuned == ("lr",)
    assert len(only.rows) == 4 * 4
    assert verdicts(only)["norm@1.0 (lr=0.1)"] == "no difference shown"
    assert only.label == "each at its best lr"


def test_it_stands_beside_the_comparison_at_equal_learning_rates_which_says_the_opposite():
    _, report = tuned(rescue())
    assert [setting.label for setting in report.settings] == [
        "each at its best lr", "lr=0.01", "lr=0.1", "lr=1", "lr=3",
    ]  # fmt: skip
    assert row(report.settings[-1], "norm@1.0").verdict == "better"
    plain = compare(pd.DataFrame(rescue()), name="study")
    assert without_overall_p(report)[1:] == without_overall_p(plain)


def without_overall_p(report):
    """The settings of a report, without what depends on the other ones."""
    settings = json_report.as_dict(report)["settings"]
    for each in (each for setting in settings for each in setting["rows"] if each["contrast"]):
        del each["contrast"]["p_overall"]
    return settings


def test_terminal_says_what_it_said():
    rows = rescue()
    rows[8] |= {"status": "diverged", "test/accuracy": np.nan, "val/accuracy": np.nan}
    check_golden("report/tuned.txt", printed(tuned(rows)[1]))


def test_every_format_takes_it(tmp_path):
    store = stored(tmp_path, pd.DataFrame(rescue()))
    report = compare(store.records(), ReportOptions(tuned=True), name="study")
    drawn = figures.draw(report, curves.read(store, report))
    assert [figure.name for figure in drawn[0]] == ["differences", "cost", "curves", "norms"]
    assert len(figures.across(report)[0].panels) == 1
    assert "each at its best lr" in html.render(report, drawn, across=figures.across(report))
    assert "4 settings · 16 arms · 8 seeds · 128 trials" in html.render(report, drawn)
    for render in (markdown.render, csv_table.render, latex.render, json_report.render):
        assert "norm@1.0 (lr=0.1)" in render(report)


def test_numbers_are_those_of_the_trials_at_these_places():
    frame = pd.DataFrame(rescue())
    only, _ = tuned(frame)
    test = frame[frame["lr"] == 0.1].pivot(index="seed", columns="arm", values="test/accuracy")
    assert row(only, "norm@1.0 (lr=0.1)").contrast.difference.mean == (test["norm@1.0"] - test["none"]).mean()
    assert set(row(only, "none (lr=0.1)").ids) == set(frame[(frame["lr"] == 0.1) & (frame["arm"] == "none")]["id"])


def test_diverged_place_is_not_chosen_whatever_its_mean():
    rows = rescue() + arm("norm", 2.0, gain=0.3, lr=0.1)[1:] + diverged("norm", 2.0, [0], lr=0.1)
    assert tuned(rows)[0].main[1].arm == "norm@1.0 (lr=0.1)"


def test_best_learning_rate_at_the_end_of_its_range_is_flagged_also_for_the_baseline():
    rows = [r for lr in (0.1, 1.0, 3.0) for r in arm("none", gain=0.01 * lr, lr=lr) + arm("norm", 1.0, lr=lr)]
    only, _ = tuned(rows)
    assert only.main[0].flags == ("best lr at the edge of its range",)
    two = [r for lr in (0.1, 1.0) for r in arm("none", lr=lr) + arm("norm", 1.0, lr=lr)]
    assert tuned(two)[0].main[0].flags == ()


def test_other_options_of_the_optimizer_are_tuned_too_and_what_is_compared_is_not():
    rows = [
        r
        for data in ("a", "b")
        for lr in (0.1, 1.0)
        for momentum in (0.0, 0.9)
        for options in [{"data": data, "lr": lr, "optimizer.momentum": momentum, "train.batch_size": 32}]
        for r in arm("none", gain=lr * momentum / 10, **options) + arm("norm", 1.0, **options)
    ]
    report = compare(pd.DataFrame(rows), ReportOptions(tuned=True))
    found = [setting for setting in report.settings if setting.tuned]
    assert [setting.label for setting in found] == [
        f"each at its best lr and optimizer.momentum, data={d}" for d in "ab"
    ]
    assert found[0].main[0].arm == "none (lr=1, optimizer.momentum=0.9)"


def test_each_optimizer_is_tuned_alone_and_one_without_an_axis_is_left_as_it_is():
    alone = {"optimizer": "adam", "lr": 0.001}
    rows = rescue(optimizer="sgd") + arm("none", **alone) + arm("norm", 1.0, **alone)
    report = compare(pd.DataFrame(rows), ReportOptions(tuned=True))
    assert [setting.label for setting in report.settings if setting.tuned] == ["each at its best lr, optimizer=sgd"]


def test_baseline_may_be_one_arm_at_its_own_best():
    only, _ = tuned(rescue(), baseline="norm@5.0")
    assert only.main[0].arm == "norm@5.0 (lr=0.1)"
    assert {each.arm for each in only.main[1:]} == {"norm@1.0 (lr=0.1)", "none (lr=0.1)"}
    assert only.main[0].verdict == "baseline"


def test_ranks_are_over_tuned_comparisons_where_there_are_any():
    reports = [tuned(rescue(data=f"d{n}") + arm("a", 1.0, lr=0.1, data=f"d{n}"))[1] for n in range(3)]
    assert combine(reports).ranks.blocks == 3
    assert size(combine(reports)) == "3 experiments, 12 settings"
    assert html.render_combined(combine(reports)).count("each at its best lr <span") == 3


def test_without_validation_data_nothing_is_tuned_and_it_is_said():
    rows = [{key: value for key, value in r.items() if not key.startswith("val/")} for r in rescue()]
    report = compare(pd.DataFrame(rows), ReportOptions(tuned=True))
    assert not any(setting.tuned for setting in report.settings)
    assert "`report.tuned` has no effect: there is no validation data." in notes.of_report(report)


# The price of choosing


def equal_places(rng, alike, thresholds=2, lrs=3):
    """Arms without any difference, at several learning rates; `alike`: how closely validation follows test."""
    arms = [("none", None), *((strategy, float(t)) for strategy in "ab" for t in range(thresholds))]
    return [
        trial(*names, seed, accuracy=test, val=alike * test + (1 - alike) * rng.normal(), lr=lr)
        for names in arms
        for lr in (0.1, 1.0, 3.0)[:lrs]
        for seed in range(8)
        for test in [rng.normal()]
    ]


@pytest.mark.parametrize("studies", [20, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("alike", [0.0, 1.0])
def test_equal_arms_are_judged_apart_at_most_at_the_nominal_rate(alike, studies):
    """Of the baseline's learning rates the best was chosen as well: `worse` must not be its luck either."""
    rng = np.random.default_rng(1)
    found = [set(verdicts(tuned(equal_places(rng, alike))[0]).values()) for _ in range(studies)]
    assert np.mean([bool(words & GOOD) for words in found]) <= 0.05
    assert np.mean(["worse" in words for words in found]) <= 0.05


def lucky(many, one):
    """One strategy at sixty learning rates, none of which is better than the other's only one."""
    rng = np.random.default_rng(5)
    rows = [trial(*one, seed, rng.normal(), lr=0.1) for seed in range(8)]
    rows += [trial(*many, seed, rng.normal(), lr=lr) for lr in np.geomspace(0.01, 1, 60) for seed in range(8)]
    only, _ = tuned(rows)
    assert only.main[1].contrast.p_unchosen < 0.05 < only.main[1].contrast.p_holm
    return only


def test_luck_of_a_choice_among_all_combinations_is_taken_out_and_said():
    only = lucky(("norm", 1.0), ("none", None))
    assert only.main[1].verdict == "no difference shown"
    assert any("if the test repeats the selection of its lr and threshold" in note for note in notes.of_setting(only))
    assert headline.sentence(only).endswith("after correction for the choice of its lr and threshold).")


def test_luck_of_the_baselines_choice_is_taken_out_and_said():
    only = lucky(("none", None), ("norm", 1.0))
    assert only.main[1].verdict == "no difference shown"
    assert any(f"if the test repeats the selection of {only.baseline}." in note for note in notes.of_setting(only))


# The YAML


@pytest.mark.parametrize(
    ("optimizer", "train", "has_axis"),
    [
        ("{name: sgd, lr: [0.1, 1.0]}", "{}", True),
        ("{name: sgd, lr: 0.1, momentum: [0.0, 0.9]}", "{}", True),
        ("[{name: sgd, lr: 0.1}, {name: sgd, lr: 0.2}]", "{}", True),
        ("{name: sgd, lr: 0.1}", "{l2: [0.0, 0.1]}", True),
        ("{name: sgd, lr: 0.1}", "{batch_size: [16, 32]}", False),
        ("[{name: sgd, lr: 0.1}, {name: adam, lr: 0.001}]", "{}", False),
        ("{name: sgd, lr: [0.1]}", "{}", False),
    ],
)
def test_tuned_needs_an_axis_to_choose_from(tmp_path, optimizer, train, has_axis):
    path = tmp_path / "study.yaml"
    path.write_text(
        f"name: study\ndata: digits\nmodel: mlp\noptimizer: {optimizer}\ntrain: {train}\n"
        "clip: [none, {name: norm, threshold: 1.0}]\nreport: {tuned: true}\n"
    )
    if has_axis:
        assert config.load(path).report.tuned
        return
    with pytest.raises(InputError, match=r"study.yaml:7:.*report.tuned: there is nothing to tune"):
        config.load(path)
