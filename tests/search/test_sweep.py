"""A sweep from its file to its table: searched in cohorts, confirmed on fresh seeds, never done twice."""

import json

import pandas as pd
import pytest

from clipbench.commands.find_and_plan import planned
from clipbench.search import confirmed_report
from clipbench.search.sweep_description import edges
from clipbench.store.sweep_file import SearchedPoint
from tests.cli_helpers import invoke, saved, train, write
from tests.sweep_helpers import ledger, plan_and_search

NORM = {"name": "norm", "threshold": {"log": [0.01, 100], "points": 3}}
SEARCH = {
    "data": {"name": "digits", "limit": 300},
    "optimizer": {"name": "sgd", "lr": 1.0},
    "train": {"epochs": 6, "batch_size": 32},
    "clip": ["none", NORM, {"name": "value", "threshold": [0.01]}],
    "seeds": 4,
    "sweep": {"trials": 12, "seeds": 2, "batch": 6, "confirm_seeds": 6},
}


def sweep(path, results, *options):
    result = invoke("sweep", path, "--results", results, "--no-mlflow", "--workers", "2", *options)
    assert result.exit_code == 0, result.stderr
    return result


def frame(results):
    return pd.read_parquet(results / "small" / "records").set_index("id")


def contender(results, label="norm"):
    return next(each for each in ledger(results, "small")["contenders"] if each["label"] == label)


def variant(folder, sweep=None, **changes):
    return write(folder, **{**SEARCH, **changes, "sweep": SEARCH["sweep"] | (sweep or {})})


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The grid first, then the sweep; the folder, and what was trained each time."""
    root = tmp_path_factory.mktemp("swept")
    path, results = variant(root), root / "results"
    grid = json.loads(train(path, results, "--json").stdout)
    found = json.loads(sweep(path, results, "--json").stdout)
    return path, results, grid, found


def test_every_point_has_its_trials_in_the_store_with_the_scores_that_are_said(swept):
    _, results, _, _ = swept
    rows = frame(results)
    for each in ledger(results, "small")["contenders"][1:]:
        assert len(each["points"]) == 12
        for point in each["points"]:
            mine = rows.loc[point["ids"]]
            assert list(mine["seed"]) == [0, 1]
            assert list(mine["threshold"].round(12)) == [round(point["values"]["threshold"], 12)] * 2
            if point["state"] == "complete":
                assert point["scores"] == [pytest.approx(mine["val/accuracy"].mean(), abs=1e-9)]
            else:
                assert set(mine["status"]) == {"pruned"}


def test_the_first_points_are_the_yamls_own_and_what_run_has_trained_is_not_trained_again(swept):
    _, results, grid, found = swept
    first = [point["values"]["threshold"] for point in contender(results)["points"] if point["origin"] == "yaml"]
    assert first == [0.01, 1.0, 100.0]
    assert {point["origin"] for point in contender(results)["points"]} == {"yaml", "pilot", "search"}
    assert grid["trained"] == 5 * 4
    known = 2 * (3 + 1)  # the grid's arms on the search seeds
    assert found["trained"] == 2 * 2 * 12 - known + 3 * 6


def test_only_winners_and_baseline_on_fresh_seeds_are_compared(swept):
    _, results, _, _ = swept
    assert ledger(results, "small")["confirm_seeds"] == [4, 5, 6, 7, 8, 9]
    rows = frame(results)
    table = pd.read_csv(results / "small" / "table.csv")
    assert list(table["strategy"].sort_values()) == ["none", "norm", "value"]
    for each in ledger(results, "small")["contenders"]:
        confirmed = rows.loc[each["confirmed"]]
        assert list(confirmed["seed"]) == [4, 5, 6, 7, 8, 9]
        (row,) = table[table["strategy"] == each["name"]].to_dict("records")
        assert row["mean"] == pytest.approx(confirmed["test/accuracy"].mean(), abs=1e-9)


def test_the_winner_is_the_best_point_that_was_trained_to_the_end(swept):
    _, results, _, _ = swept
    for each in ledger(results, "small")["contenders"][1:]:
        complete = [point for point in each["points"] if point["state"] == "complete" and not point["diverged"]]
        best = max(complete, key=lambda point: (point["scores"][0], -point["number"]))
        assert each["winner"] == best["number"]


def test_pruned_points_were_behind_at_the_end_of_an_epoch(swept):
    _, results, _, _ = swept
    pruned = [
        point
        for each in ledger(results, "small")["contenders"]
        for point in each["points"]
        if point["state"] == "pruned"
    ]
    assert pruned, "an experiment in which large thresholds are bad prunes some"
    assert all(1 <= point["epochs"] < 6 for point in pruned)
    rows = frame(results)
    assert rows.loc[pruned[0]["ids"], "test/accuracy"].isna().all()


def test_the_same_command_finds_everything_done(swept):
    path, results, _, _ = swept
    before, table = len(saved(results / "small")), (results / "small" / "table.csv").read_text()
    again = json.loads(sweep(path, results, "--json").stdout)
    assert again["trained"] == 0
    assert len(saved(results / "small")) == before
    assert (results / "small" / "table.csv").read_text() == table


def test_the_report_is_of_the_sweep_until_the_grid_is_asked_for(swept):
    path, results, _, _ = swept
    shown = invoke("report", path, "--results", results)
    assert "as the search found it, on fresh seeds" in " ".join(shown.stdout.split())
    grid = invoke("report", path, "--results", results, "--grid")
    assert "norm@100.0" in (results / "small" / "table.csv").read_text()
    assert "fresh seeds" not in grid.stdout
    invoke("report", "small", "--results", results)
    assert "norm@100.0" not in (results / "small" / "table.csv").read_text()


def test_what_was_confirmed_is_kept_for_reports_by_file_and_by_name(swept):
    path, results, _, _ = swept
    sweep(path, results)
    files = results / "small" / ".subjects"
    before = {file.name: file.stat().st_mtime_ns for file in files.iterdir()}
    for asked in (path, "small"):
        assert "fresh seeds" in invoke("report", asked, "--results", results).stdout
    assert {file.name: file.stat().st_mtime_ns for file in files.iterdir()} == before


def test_a_report_is_never_of_an_older_search_that_was_kept(swept):
    path, results, _, _ = swept
    file = results / "small" / "sweep.json"
    text = file.read_text()
    changed = json.loads(text)
    next(each for each in changed["contenders"] if each["label"] == "norm")["confirmed"] = ["0" * 16]
    try:
        file.write_text(json.dumps(changed))
        assert "fresh seeds" not in invoke("report", path, "--results", results).stdout
    finally:
        file.write_text(text)
    assert "fresh seeds" in invoke("report", path, "--results", results).stdout


OTHERS = {
    "another rate": {"optimizer": {"name": "sgd", "lr": 0.5}},
    "nothing to judge by": {"data": {"name": "digits", "limit": 300, "split": {"val": 0, "test": 0.2}}},
    "nothing to search": {"clip": ["none"]},
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_yaml_has_another_report_and_is_planned_once(swept, tmp_path, monkeypatch, other):
    _, results, _, _ = swept
    path = write(tmp_path, **{**SEARCH, **OTHERS[other]})
    plans = []
    monkeypatch.setattr(confirmed_report, "planned", lambda *given: plans.append(planned(*given)) or plans[-1])
    shown = invoke("report", path, "--results", results)
    assert shown.exit_code == 0 and len(plans) == 1, shown.stderr
    assert "fresh seeds" not in shown.stdout


def test_more_trials_go_on_where_fewer_ended(tmp_path):
    path, results = variant(tmp_path, clip=["none", NORM]), tmp_path / "results"
    sweep(path, results, "--trials", "6")
    first = contender(results)["points"]
    sweep(path, results, "--trials", "9")
    points = contender(results)["points"]
    assert points[:6] == first
    assert len({point["values"]["threshold"] for point in points}) == len(points) == 9


def test_the_same_yaml_gives_the_same_sweep(tmp_path):
    found = []
    for name in ("one", "two"):
        path = variant(tmp_path / name, {"pruner": "hyperband"}, clip=["none", NORM])
        sweep(path, tmp_path / name / "results")
        found.append(ledger(tmp_path / name / "results", "small")["contenders"])
    assert found[0] == found[1]


def test_what_lies_at_the_end_of_its_range_is_flagged_with_what_to_type(tmp_path):
    narrow = {"name": "norm", "threshold": {"log": [0.0001, 0.001], "points": 2}}
    path, results = variant(tmp_path, {"trials": 4}, clip=["none", narrow]), tmp_path / "results"
    shown = sweep(path, results).stdout
    (edge,) = contender(results)["edges"]
    assert edge["end"] == "high"
    assert edge["remedy"] in " ".join(shown.split())
    option, value = edge["remedy"].split("=", 1)
    again = invoke("check", path, "--set", f"{option.removeprefix('--set ')}={value.strip(chr(39))}")
    assert again.exit_code == 0, again.stderr


def test_no_range_is_widened_beyond_what_an_option_takes(tmp_path):
    search = {"optimizer.momentum": {"linear": [0, 0.9]}, "optimizer.lr": {"log": [0.01, 1]}}
    _, _, (none, _) = plan_and_search(variant(tmp_path, {"search": search}, clip=["none", NORM]))
    assert {param.path: param.can_widen for param in none.hyperparameters} == {
        "optimizer.momentum": ("high",),
        "lr": ("low", "high"),
    }
    best = SearchedPoint(0, {"optimizer.momentum": 0.0, "lr": 1.0}, "search", "complete", (1.0,), (0.0,), 0, 2, 1, ())
    assert [(edge.path, edge.end) for edge in edges(none, best)] == [("lr", "high")]


def test_wilcoxon_releases_seeds_in_rounds_and_stops_those_that_are_worse(tmp_path):
    path = variant(tmp_path, {"pruner": "wilcoxon", "seeds": 8, "trials": 10}, clip=["none", NORM], seeds=8)
    sweep(path, tmp_path / "results")
    points = contender(tmp_path / "results")["points"]
    lanes = [point["lanes"] for point in points]
    assert {point["lanes"] for point in points if point["state"] == "complete"} == {8}
    assert {point["lanes"] for point in points if point["state"] == "pruned"} <= {4, 6}
    assert min(lanes) < 8, "thresholds over four decades are not all alike"
    rows = frame(tmp_path / "results")
    for point in points:
        there = [id_ for id_ in point["ids"] if id_ in rows.index]
        assert len(there) == point["lanes"]
        assert point["scores"] == [pytest.approx(rows.loc[there, "val/accuracy"].mean(), abs=1e-9)]


def test_folds_are_part_of_a_points_score(tmp_path):
    data = {"name": "digits", "limit": 300, "folds": 3}
    path = variant(tmp_path, {"trials": 3, "confirm_seeds": 2}, data=data, clip=["none", NORM])
    sweep(path, tmp_path / "results")
    each = contender(tmp_path / "results")
    assert all(point["lanes"] == 2 * 3 for point in each["points"])
    rows = frame(tmp_path / "results")
    best = next(point for point in each["points"] if point["number"] == each["winner"])
    assert sorted(rows.loc[best["ids"], "data.fold"].unique()) == [0, 1, 2]
    assert best["scores"] == [pytest.approx(rows.loc[best["ids"], "val/accuracy"].mean(), abs=1e-9)]
    assert len(each["confirmed"]) == 2 * 3


def test_two_objectives_end_in_a_front(tmp_path):
    sections = {"train": {"epochs": 4, "batch_size": 32, "target": {"val/accuracy": 0.5}}, "clip": ["none", NORM]}
    path = variant(tmp_path, {"objective": ["val/accuracy", "epochs_to_target"], "trials": 6}, **sections)
    shown = sweep(path, tmp_path / "results").stdout
    document, each = ledger(tmp_path / "results", "small"), contender(tmp_path / "results")
    assert document["objectives"] == [
        {"name": "val/accuracy", "higher": True},
        {"name": "epochs_to_target", "higher": False},
    ]
    front = [point["scores"] for point in each["points"] if point["number"] in each["pareto"]]
    for one in front:
        assert not any(other[0] > one[0] and other[1] < one[1] for other in front)
    assert each["winner"] in each["pareto"]
    assert "epochs_to_target" in shown


def test_a_learning_rate_that_is_searched_too_makes_one_comparison_of_each_at_its_best(tmp_path):
    search = {"search": {"optimizer.lr": {"log": [0.05, 2]}}, "trials": 8}
    path = variant(tmp_path, search, clip=["none", NORM], report={"tuned": True})
    shown = sweep(path, tmp_path / "results").stdout
    each, none = contender(tmp_path / "results"), contender(tmp_path / "results", "none")
    assert {param["path"] for param in each["hyperparameters"]} == {"threshold", "lr"}
    assert {param["path"] for param in none["hyperparameters"]} == {"lr"}, "the baseline is searched as hard"
    rates = {
        c["label"]: next(p for p in c["points"] if p["number"] == c["winner"])["values"]["lr"] for c in (each, none)
    }
    assert "each at its best lr" in " ".join(shown.split())
    comparisons = json.loads((tmp_path / "results" / "small" / "report.json").read_text())["settings"]
    assert [[row["strategy"] for row in setting["rows"]] for setting in comparisons] == [["none", "norm"]] * 2
    assert comparisons[1]["axes"] == {"lr": f"{rates['none']:g}"}
    rows = frame(tmp_path / "results")
    fresh = rows[rows["seed"] >= 4]
    assert {*fresh.loc[fresh["strategy"] == "norm", "lr"]} == {rates["norm"], rates["none"]}, "at equal rates too"
    assert set(each["importances"]) == {"threshold", "lr"}


def test_a_baseline_at_a_threshold_is_confirmed_as_it_is(tmp_path):
    path = variant(tmp_path, {"trials": 3}, clip=[NORM], report={"baseline": "norm@100.0"})
    sweep(path, tmp_path / "results")
    table = pd.read_csv(tmp_path / "results" / "small" / "table.csv")
    assert "norm@100.0" in list(table["arm"])


def test_time_that_is_over_ends_the_search_and_what_was_found_is_confirmed(tmp_path):
    path = variant(tmp_path, {"timeout": 0.001, "trials": 100, "batch": 3})
    shown = sweep(path, tmp_path / "results").stdout
    document = ledger(tmp_path / "results", "small")
    assert document["stopped"] == "timeout of 0.001 s"
    assert [len(each["points"]) for each in document["contenders"]] == [0, 3, 3], "as many of each"
    assert all(each["confirmed"] for each in document["contenders"])
    assert "timeout" in shown


def test_everything_that_diverges_still_has_scores_and_a_table(tmp_path):
    path = variant(tmp_path, {"trials": 4}, optimizer={"name": "sgd", "lr": 1e30}, clip=["none", NORM])
    sweep(path, tmp_path / "results")
    each = contender(tmp_path / "results")
    assert [point["diverged"] for point in each["points"]] == [2] * 4
    assert all(point["scores"] == [0.0] for point in each["points"])
    assert len(each["confirmed"]) == 6


def test_dry_run_says_what_would_be_searched_and_leaves_nothing_behind(tmp_path):
    path = variant(tmp_path)
    shown = invoke("sweep", path, "--results", tmp_path / "results", "--dry-run").stdout
    assert "threshold 0.01 to 100 (log)" in shown
    assert "seeds 4 to 9" in shown
    assert not (tmp_path / "results").exists()
    document = json.loads(invoke("sweep", path, "--results", tmp_path / "results", "--dry-run", "--json").stdout)
    assert document["contenders"][1]["hyperparameters"][0]["low"] == 0.01
