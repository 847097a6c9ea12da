"""What the report says of a search: what was found, what fresh seeds show, word by word and picture by picture."""

import csv
import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats as scipy_stats

from clipbench import config
from clipbench.analysis.search_result import CONFIRMED, NOT_CONFIRMED, NOT_SEARCHED, OPTIMISTIC, PESSIMISTIC
from clipbench.analysis.strategy_ranks import combine
from clipbench.reporting import ReportOptions, compare, figures, notes, search_tables
from clipbench.reporting import search_sentences as words
from clipbench.reporting.combined import size
from clipbench.reporting.figures.drawing import COLORS
from clipbench.reporting.formats import csv_table, html, json_report, latex, markdown
from clipbench.store import sweep_file
from tests import fake_sweep, pages
from tests.analysis.test_tuned import without_overall_p
from tests.docs.test_examples import BASE
from tests.fake_sweep import SCENES, contender, fresh, param
from tests.golden_files import check_golden
from tests.reporting.test_report import GOOD, arm, printed
from tests.reporting.test_report_latex import PDFLATEX, typeset
from tests.svg_reader import CHROMIUM, Drawing, browser_boxes, check_places, clashes, font_boxes


def searched(tmp_path, written):
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(written), encoding="utf-8")
    return sweep_file.read(path)


def report_of(tmp_path, written, frame, **options):
    planned = {id_: id_ for each in written["contenders"] for id_ in each["confirmed"]}
    options = {"planned": planned} | options
    return compare(frame, ReportOptions(swept=searched(tmp_path, written), **options), name="study")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return {name: report_of(folder, *scene()) for name, scene in SCENES.items()}


def found(report, name):
    (row,) = [row for row in report.search.found if row.contender.name == name]
    return row


def drawn(report):
    return {figure.name: figure for figure in figures.of_search(report)}


def flags(report, name):
    return [flag.words for flag in words.flags(found(report, name), report.search.swept)]


# What is written


@pytest.mark.parametrize("name", SCENES)
def test_terminal_says_what_it_said(scenes, name):
    text = printed(scenes[name])
    check_golden(f"search/{name}.txt", text)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", ["thresholds", "unfinished"])
def test_markdown_says_what_it_said(scenes, name):
    check_golden(f"search/{name}.md", markdown.render(scenes[name]))


def test_latex_says_what_it_said(scenes):
    check_golden("search/jointly.tex", latex.render(scenes["jointly"]))


@pytest.mark.skipif(PDFLATEX is None, reason="there is no pdflatex on this machine: install TeX Live to typeset")
@pytest.mark.parametrize("name", SCENES)
def test_tables_are_typeset(scenes, name, tmp_path):
    typeset(tmp_path, latex.render(scenes[name]))


def test_json_holds_the_whole_search(scenes):
    for name, report in scenes.items():
        told = json.loads(json_report.render(report), parse_constant=pytest.fail)["search"]
        assert told["headline"] == words.headline(report.search)
        assert len(told["found"]) == len(told["swept"]["contenders"])
        assert told["swept"]["contenders"][1]["points"][0]["values"]["threshold"] > 0, name
    assert json.loads(json_report.render(compare(pd.DataFrame())))["search"] is None


def test_csv_has_a_row_a_point_in_full_precision(scenes):
    report = scenes["jointly"]
    rows = pd.read_csv(io.StringIO(csv_table.render_points(report.search.swept)))
    assert len(rows) == 120 and rows["winner"].sum() == 3
    best = rows[rows["winner"] & (rows["contender"] == "norm")].iloc[0]
    winner = found(report, "norm").contender.winning
    assert (best["lr"], best["val/accuracy"]) == (winner.values["lr"], winner.scores[0])
    assert rows.loc[rows["contender"] == "none", "threshold"].isna().all()
    assert len(next(csv.reader([best["ids"]], delimiter=" "))) == 3
    assert csv_table.render(report).count("\n") == 1 + 3  # of the arms, as ever


# What is concluded


def test_bias_is_the_searched_score_minus_that_of_fresh_seeds_with_their_interval(tmp_path):
    written, frame = fake_sweep.thresholds()
    confirmation = found(report_of(tmp_path, written, frame), "norm").confirmations[0]
    mine = frame[frame["strategy"] == "norm"]["val/accuracy"]
    half = scipy_stats.t.ppf(0.975, 7) * scipy_stats.sem(mine)
    assert confirmation.confirmed.mean == pytest.approx(mine.mean())
    assert confirmation.bias.mean == pytest.approx(confirmation.searched - mine.mean())
    assert confirmation.bias.half_width == pytest.approx(half)


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [(-0.02, "optimistic"), (0.0, "confirmed"), (0.02, "pessimistic")],
    ids=["worse", "same", "better"],
)
@pytest.mark.parametrize("higher", [True, False])
def test_verdict_follows_the_direction_of_the_measure(gain, verdict, higher, tmp_path):
    name, sign = ("val/accuracy", 1) if higher else ("val/loss", -1)
    confirmed = fresh("norm", 0.5, spread=0.001)
    mean = np.mean([row["val/accuracy"] for row in confirmed])
    for row in confirmed:
        row["val/loss"] = row["val/accuracy"]
    made = fake_sweep.points("norm", [param()], 1, {"threshold": 0.5})
    made[0]["scores"] = [mean - sign * gain]
    written = fake_sweep.document(contender("norm", [param()], made, confirmed), objectives=((name, higher),))
    confirmation = found(report_of(tmp_path, written, pd.DataFrame(confirmed)), "norm").confirmations[0]
    assert confirmation.verdict == verdict
    assert confirmation.bias.mean == pytest.approx(-gain, abs=1e-12)


def test_headline_of_one_contender_is_a_sentence_for_a_stranger(tmp_path):
    written, frame = fake_sweep.thresholds()
    written["contenders"].pop()
    report = report_of(tmp_path, written, frame)
    assert words.headline(report.search) == (
        "The search tried 40 thresholds of norm on seeds 0 to 2 and found 0.6024 (val/accuracy 94.78 %); on 8 fresh seeds "
        "it scores 93.84 ± 0.78 %: the search was optimistic by 0.94 percentage points."
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"contenders": []}, "There was nothing to search."),
        ({"search_seeds": [5]}, "on seed 5, and"),
        ({"search_seeds": [1, 2, 5]}, "on seeds 1, 2, 5, and"),
    ],
)
def test_headline_says_what_there_is(change, said, tmp_path):
    written, frame = fake_sweep.thresholds()
    assert said in words.headline(report_of(tmp_path, written | change, frame).search)


def test_one_fresh_seed_has_no_interval_and_so_no_verdict(tmp_path):
    written, frame = fake_sweep.thresholds()
    report = report_of(tmp_path, written, frame[frame["seed"] == 8])
    assert found(report, "norm").confirmations[0].verdict == ""
    assert words.headline(report.search).endswith("on 1 fresh seed it scores 94.83 %.")
    assert flags(report, "norm") == ["confirmed on 1 of 8 fresh seeds so far"]


def test_folds_of_a_fresh_seed_are_averaged_within_it(tmp_path):
    written, frame = fake_sweep.thresholds()
    folds = pd.concat([frame.assign(**{"data.fold": k, "id": frame["id"] + f"/{k}"}) for k in range(3)])
    folds["val/accuracy"] += 0.01 * folds["data.fold"]
    for each in written["contenders"]:
        each["confirmed"] = [f"{id_}/{k}" for id_ in each["confirmed"] for k in range(3)]
    row = found(report_of(tmp_path, written, folds), "norm")
    assert (row.fresh, row.confirmations[0].confirmed.n) == (8, 8)


def test_diverged_trials_are_said_and_a_score_with_a_penalty_has_no_bias(tmp_path):
    written, frame = fake_sweep.thresholds()
    frame.loc[frame["strategy"].eq("norm") & frame["seed"].eq(9), ["status", "val/accuracy"]] = ["diverged", np.nan]
    made = written["contenders"][2]["points"]
    made[written["contenders"][2]["winner"]]["diverged"] = 1
    report = report_of(tmp_path, written, frame)
    assert flags(report, "norm") == ["diverged on 1 of 8 fresh seeds"]
    assert flags(report, "value")[1] == "diverged on 1 of 3 trials of the search; its score contains a penalty"
    assert found(report, "norm").confirmations[0].confirmed.n == 7
    assert math.isnan(found(report, "value").confirmations[0].bias.mean)


def test_best_point_at_the_end_of_a_range_is_flagged_with_what_to_type(scenes):
    report = scenes["thresholds"]
    (flag,) = words.flags(found(report, "value"), report.search.swept)
    assert flag.words == "the best point is at the lower limit of threshold; to widen the range:"
    assert flag.remedy in printed(scenes["thresholds"])  # in one line, to be copied
    assert f"`{flag.remedy}`" in markdown.render(scenes["thresholds"])


def test_values_that_were_found_are_not_broken_at_80_columns(tmp_path):
    written, frame = fake_sweep.jointly()
    for each in written["contenders"]:
        each["label"] += " (transformer)"
    report = report_of(tmp_path, written, frame)
    said, known = printed(report), words.names(report.search.swept)
    assert max(map(len, said.splitlines())) <= 80 and len(known) == 3
    for row in report.search.found:
        assert f"{row.contender.label}  {words.place(row.contender.winning, known)}" in re.sub("  +", "  ", said)


def test_unfinished_search_says_what_is_missing(scenes):
    report = scenes["unfinished"]
    assert flags(report, "norm") == ["16 of 40 points tried, 8 running", "not confirmed yet"]
    assert flags(report, "agc") == ["0 of 40 points tried"]
    assert "! the search ended early (timeout of 600 s); the same command continues it" in printed(report)
    assert "fresh seeds" not in "".join(figure.caption for figure in drawn(report).values())
    assert report.settings == ()
    assert notes.of_report(report) == (
        "Nothing that the search found has been trained on fresh seeds yet, so there is nothing to compare.",
    )


def test_a_space_of_choices_that_is_exhausted_is_not_underfilled(tmp_path):
    made = fake_sweep.points("a", [fake_sweep.BATCHES], 3, {})
    written = fake_sweep.document(contender("a", [fake_sweep.BATCHES], made, confirm=False))
    assert flags(report_of(tmp_path, written, pd.DataFrame()), "a") == ["not confirmed yet"]


def test_no_point_that_was_trained_to_its_end_is_said(tmp_path):
    made = [each | {"state": "pruned"} for each in fake_sweep.points("a", [param()], 40, {})]
    report = report_of(tmp_path, fake_sweep.document(contender("a", [param()], made)), pd.DataFrame())
    assert flags(report, "a") == ["no point has finished training"]
    assert words.headline(report.search) == "The search has not finished any point yet."


def test_shares_of_the_budget_are_of_the_epochs_that_were_trained(scenes):
    rows = scenes["jointly"].search.found
    assert sum(row.budget for row in rows) == pytest.approx(1)
    none, norm = (found(scenes["jointly"], name) for name in ("none", "norm"))
    assert none.contender.epochs == 40 * 3 * 20
    assert norm.contender.epochs == 3 * (20 * 37 + 5 * 3)


def test_points_of_the_pareto_table_are_not_dominated_by_their_own_contender_and_name_one_that_dominates_them(scenes):
    report = scenes["objectives"]
    peers = list(search_tables.front_points(report.search))
    assert {peer.contender.name for peer in peers} == {"norm", "value"}
    for peer in peers:
        better = [
            other.contender.name
            for other in peers
            if other.point.scores[0] >= peer.point.scores[0] and other.point.scores[1] <= peer.point.scores[1]
            if other.point is not peer.point
        ]
        assert peer.contender.name not in better
        assert (peer.dominated_by in better) if better else peer.dominated_by == ""
    assert any(peer.dominated_by for peer in peers)


# The comparison of what was found


def test_arms_that_were_found_are_compared_with_the_baseline_whatever_their_learning_rates(scenes):
    (only,) = scenes["jointly"].settings
    assert only.baseline == "none (lr=0.07813)" and only.tuned == ("lr",) and only.searched
    assert {row.strategy: row.verdict for row in only.main}["norm"] == "best"


def test_what_was_found_is_compared_at_the_learning_rate_of_the_baseline_too(tmp_path):
    """Trials that are planned beside those that were found, as `report.tuned` asks for them."""
    written, frame = fake_sweep.jointly()
    rate = frame.loc[frame["strategy"] == "none", "lr"].iloc[0]
    others = frame[frame["strategy"] != "none"]
    equal = others.assign(lr=rate, id=others["id"] + "/equal", **{"test/accuracy": others["test/accuracy"] - 0.03})
    together = pd.concat([frame, equal], ignore_index=True)
    report = report_of(tmp_path, written, together, planned={id_: id_ for id_ in together["id"]}, tuned=True)
    first, second = report.settings
    assert without_overall_p(report)[0] == without_overall_p(report_of(tmp_path, written, frame))[0]
    assert (first.label, second.label) == ("each at its best lr", f"lr={rate:g}")
    assert [row.strategy for row in second.main] == ["none", "norm", "zclip"]
    assert {row.arm for row in second.main}.isdisjoint(row.arm for row in first.main)
    assert {row.verdict for row in second.main} == {"baseline", "worse"}
    assert "each strategy as the search found it, at equal lr, on fresh seeds" in " ".join(printed(report).split())


def test_name_of_an_arm_says_all_that_was_found_for_it(tmp_path):
    """One option would tell these arms apart, and would not be what to use."""
    hyperparameters = [fake_sweep.LR, param("optimizer.momentum", 0.0, 0.9, log=False)]
    made = {name: fake_sweep.points(name, hyperparameters, 20, {"lr": 0.1}) for name in ("none", "sign")}
    rows = {name: fake_sweep.found(hyperparameters, each, name, 0.0) for name, each in made.items()}
    written = fake_sweep.document(*(contender(name, hyperparameters, made[name], rows[name]) for name in made))
    (only,) = report_of(tmp_path, written, pd.DataFrame(rows["none"] + rows["sign"])).settings
    for row in only.main:
        values = found(report_of(tmp_path, written, pd.DataFrame(rows["none"])), row.strategy).contender.winning.values
        assert row.arm == f"{row.strategy} (lr={values['lr']:.6g}, momentum={values['optimizer.momentum']:.6g})"
    assert only.tuned == ("lr", "momentum")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"report": "val/accuracy"},
            "What is compared here was selected by val/accuracy on the same examples, with other seeds",
        ),
        ({"drop": True}, "No trial has a finite val/accuracy: no arm is called best."),
    ],
)
def test_what_the_seeds_cannot_say_is_a_note(change, words, tmp_path):
    written, frame = fake_sweep.thresholds()
    frame = frame.drop(columns="val/accuracy") if "drop" in change else frame
    report = report_of(tmp_path, written, frame, metric=change.get("report"))
    assert any(words in note for note in notes.of_setting(report.settings[0]))


def test_settings_that_were_not_searched_stay_apart(tmp_path):
    rows, contenders = [], []
    for optimizer in ("sgd", "adam"):
        for name in ("none", "norm"):
            made = fake_sweep.points(name, [fake_sweep.LR], 8, {"lr": 0.1 if name == "none" else 0.01})
            confirmed = [
                row | {"id": f"{row['id']}/{optimizer}"}
                for row in fake_sweep.found([fake_sweep.LR], made, name, 0.0, optimizer=optimizer)
            ]
            contenders.append(contender(name, [fake_sweep.LR], made, confirmed, setting=optimizer))
            rows += confirmed
    report = report_of(tmp_path, fake_sweep.document(*contenders), pd.DataFrame(rows))
    assert [setting.label for setting in report.settings] == [
        "each at its best lr, optimizer=adam", "each at its best lr, optimizer=sgd",
    ]  # fmt: skip
    assert [row.contender.label for row in report.search.found][:2] == ["none (sgd)", "norm (sgd)"]
    assert "32 points of 4 contenders" in words.headline(report.search)


def test_trials_of_the_search_are_not_called_others(tmp_path):
    written, frame = fake_sweep.thresholds()
    ids = [id_ for each in written["contenders"] for point in each["points"] for id_ in point["ids"]]
    trained = pd.DataFrame([row | {"id": id_} for id_ in ids for row in arm("norm", 3.0, seeds=1)])
    report = report_of(tmp_path, written, pd.concat([frame, trained], ignore_index=True))
    assert notes.of_report(report) == ()
    alien = trained.iloc[:1].assign(id="alien")
    report = report_of(tmp_path, written, pd.concat([frame, trained, alien], ignore_index=True))
    assert notes.of_report(report) == (
        "The results folder also contains 1 trial that is not part of this YAML; it is not shown.",
    )


def test_arm_that_was_found_at_the_edge_says_so_in_the_comparison_too(scenes):
    (only,) = scenes["thresholds"].settings
    flagged = {row.strategy: row.flags for row in (*only.main, *only.rows)}
    assert flagged["value"] == ("best at the edge of the range",) and flagged["norm"] == ()


def test_claims_are_answered_by_what_was_found_whatever_its_learning_rate(tmp_path):
    written, frame = fake_sweep.jointly()
    claims = [{"says": "it helps", "expect": "norm > none"}]
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(BASE | {"clip": ["none", {"name": "norm", "threshold": 1.0}], "claims": claims}))
    experiment = config.load(path)
    asked = tuple(zip(experiment.claims, experiment.expectations, strict=True))
    (answered,) = report_of(tmp_path, written, frame, claims=asked).claims
    assert (answered.verdict, answered.pairs) == ("supported", 8)


def test_page_of_several_experiments_counts_and_ranks_what_was_found(scenes):
    together = combine([scenes["jointly"], scenes["thresholds"], scenes["unfinished"]])
    assert size(together) == "3 experiments, 2 settings"
    assert "All experiments" in html.render_combined(together)


def test_the_search_of_deterministic_training_is_confirmed(tmp_path):
    """All seeds are equal then, and the mean of equal numbers differs from them in its last digit."""
    confirmed = [row | {"val/accuracy": 0.1 + 0.2} for row in fresh("norm", 0.5)]
    made = fake_sweep.points("norm", [param()], 1, {"threshold": 0.5})
    made[0]["scores"] = [0.3]
    report = report_of(
        tmp_path, fake_sweep.document(contender("norm", [param()], made, confirmed)), pd.DataFrame(confirmed)
    )
    confirmation = found(report, "norm").confirmations[0]
    assert (confirmation.verdict, confirmation.bias.mean) == ("confirmed", 0)


# What is drawn


def test_figures_are_there_where_there_is_something_to_show(scenes):
    names = {name: list(drawn(report)) for name, report in scenes.items()}
    assert names == {
        "thresholds": ["history", "slices"],
        "jointly": ["history", "slices", "importance", "parallel"],
        "objectives": ["history", "slices", "history-2", "slices-2", "front"],
        "unfinished": ["history", "slices"],
    }
    assert figures.of_search(compare(pd.DataFrame())) == []


def drawings(figure):
    return [Drawing(panel) for panel in figure.panels]


def test_history_marks_every_point_that_is_not_under_way_by_what_became_of_it(scenes):
    for name in ("thresholds", "unfinished"):
        for drawing, row in zip(
            drawings(drawn(scenes[name])["history"]),
            [r for r in scenes[name].search.found if r.contender.tried],
            strict=True,
        ):
            found_ = drawing.marks
            tried = [point for point in row.contender.points if point.state != "running"]
            assert len(found_) == len(tried)
            shapes = [mark.shape for mark in found_]
            assert shapes.count("diamond") == (row.contender.winner is not None)
            assert shapes.count("ring") == sum(p.state == "pruned" for p in tried)
            assert shapes.count("cross") == sum(bool(p.diverged) or p.state == "failed" for p in tried)
            assert "diamond" not in shapes[:-1]  # nothing covers it


def test_best_so_far_only_rises_and_ends_at_the_best_point(scenes):
    for drawing in drawings(drawn(scenes["thresholds"])["history"]):
        (line,) = drawing.of("line", "green")
        heights = [y for _, y in line.points]
        assert heights == sorted(heights, reverse=True)
        assert heights[-1] == min(mark.y for mark in drawing.marks if mark.shape in ("circle", "square", "diamond"))


def test_fresh_seeds_are_a_band_behind_the_history_and_an_interval_at_the_found_value(scenes):
    for name, row in (
        (row.contender.name, row) for row in scenes["thresholds"].search.found if row.contender.hyperparameters
    ):
        figures_ = drawn(scenes["thresholds"])
        history = next(d for d in drawings(figures_["history"]) if d.title.endswith(name))
        (band,) = history.of("box")
        slice_ = next(d for d in drawings(figures_["slices"]) if d.title.endswith(name))
        (square,) = [mark for mark in slice_.marks if mark.color == "green"]
        (diamond,) = [mark for mark in slice_.marks if mark.shape == "diamond"]
        assert square.x == diamond.x
        assert (square.y > diamond.y) == (row.confirmations[0].bias.mean > 0)
        assert min(y for _, y in band.points) < square.y < max(y for _, y in band.points)


def test_slices_put_values_in_their_order_and_choices_at_places_of_their_own(scenes):
    by_title = {drawing.title: drawing for drawing in drawings(drawn(scenes["jointly"])["slices"])}
    assert list(by_title) == [
        "lr of none", "threshold of norm", "lr of norm", "threshold of zclip", "lr of zclip", "window of zclip",
    ]  # fmt: skip
    assert len({mark.x for mark in by_title["window of zclip"].marks}) == 3
    assert {"10", "100", "1000"} <= set(by_title["window of zclip"].words)
    lr = by_title["lr of none"]
    said = {mark.x: float(mark.text.partition("lr=")[2].split(",")[0]) for mark in lr.marks if "lr=" in mark.text}
    assert len(said) > 30
    for x, value in said.items():
        assert lr.value_at_x(x, 196, log=True) == pytest.approx(value, rel=0.05)


def test_points_are_drawn_at_their_scores_by_the_labels_of_the_axis(scenes):
    for name, figure in (("history", "thresholds"), ("slices", "jointly")):
        for drawing in drawings(drawn(scenes[figure])[name]):
            heights = [mark.y for mark in drawing.marks]
            for mark in drawing.marks:
                said = re.search(r"val/accuracy ([\d.]+)", mark.text)
                is_score = mark.shape in ("circle", "square", "diamond") and mark.color != "green"
                if said and is_score and mark.y < max(heights):  # those at the edge are worse
                    assert drawing.value_at_y(mark.y, 46, 196) == pytest.approx(float(said[1]), abs=0.1)


def test_much_worse_points_stand_at_the_edge_and_that_is_said(scenes):
    figure = drawn(scenes["thresholds"])["history"]
    assert "much worse are drawn at the edge" in figure.caption
    floor = max(mark.y for drawing in drawings(figure) for mark in drawing.marks)
    row = found(scenes["thresholds"], "norm")
    worst = min((p for p in row.contender.points if p.is_steady), key=lambda p: p.scores[0])
    (mark,) = [mark for mark in drawings(figure)[0].marks if f"point {worst.number}:" in mark.text]
    assert mark.y == floor
    assert f"{100 * worst.scores[0]:.2f}" in mark.text  # it says its score when the pointer rests on it


def test_parallel_lines_end_at_the_score_and_the_found_one_lies_on_top(scenes):
    for drawing, name in zip(drawings(drawn(scenes["jointly"])["parallel"]), ("norm", "zclip"), strict=True):
        contender_ = found(scenes["jointly"], name).contender
        lines = [line for line in drawing.of("line") if len(line.points) == 1 + len(contender_.hyperparameters)]
        lines = [line for line in lines if line.color in ("gray", "blue", "orange")]
        assert len(lines) == sum(point.is_steady for point in contender_.points)
        assert lines[-1].color == "orange"
        assert lines[-1].points[-1][1] == min(line.points[-1][1] for line in lines)


def test_bars_are_as_long_as_what_they_say(scenes):
    for drawing in drawings(drawn(scenes["jointly"])["importance"]):
        grounds, bars = drawing.of("box", "gray"), drawing.of("box", "blue")
        shares = [bar.points[1][0] - bar.points[0][0] for bar in bars]
        whole = grounds[0].points[1][0] - grounds[0].points[0][0]
        said = [float(word.split()[0]) for word in drawing.words if word.endswith("%")]
        assert [100 * share / whole for share in shares] == pytest.approx(said, abs=0.1)
        assert said == sorted(said, reverse=True)


def test_front_holds_the_points_of_the_pareto_table(scenes):
    report = scenes["objectives"]
    for drawing, name in zip(drawings(drawn(report)["front"]), ("norm", "value"), strict=True):
        front = [mark.text for mark in drawing.marks if mark.shape in ("circle", "diamond")]
        shown = {text.split("point ")[1].split(":")[0] for text in front}
        assert shown == {str(number) for number in found(report, name).contender.pareto}


def test_score_axis_of_a_loss_over_decades_is_logarithmic_and_better_is_said(tmp_path):
    made = fake_sweep.points("norm", [param()], 20, {"threshold": 0.5}, explode=1e9)
    for each in made:
        each |= {"scores": [10 ** -(each["number"] / 3)], "state": "complete"}
    written = fake_sweep.document(contender("norm", [param()], made), objectives=(("train/loss", False),))
    drawing = drawings(drawn(report_of(tmp_path, written, pd.DataFrame()))["history"])[0]
    assert "train/loss, log axis (lower is better)" in drawing.words


@pytest.fixture(scope="module")
def every_drawing(scenes):
    return [drawing for report in scenes.values() for f in drawn(report).values() for drawing in drawings(f)]


def test_everything_stands_inside_its_panel_in_colours_that_themes_know_and_has_numbers_in_words(every_drawing):
    for drawing in every_drawing:
        check_places(drawing)
        assert {shape.color for shape in drawing.shapes} <= set(COLORS)
        assert any(sign.isdigit() for sign in drawing.label)


def test_no_words_overlap_in_a_wide_font(every_drawing):
    for drawing in every_drawing:
        assert clashes(drawing, font_boxes(drawing)) == [], drawing.title


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine: install `chromium`")
def test_no_words_overlap_in_a_browser(every_drawing, tmp_path):
    for drawing, boxes in zip(every_drawing, browser_boxes(tmp_path, every_drawing), strict=True):
        assert clashes(drawing, boxes) == [], drawing.title


def test_figures_are_files_and_pictures_too(scenes):
    for figure in drawn(scenes["jointly"]).values():
        assert figure.png.startswith(b"\x89PNG")
        root = ElementTree.fromstring(figure.svg)
        assert figure.caption in " ".join(text.text for text in root.iter("{http://www.w3.org/2000/svg}text"))


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a|b`c*[d]", "\\x_{}$%&#~^", "x" * 200])
def test_users_names_stay_text_everywhere(name, tmp_path):
    written, frame = fake_sweep.jointly()
    for each in written["contenders"]:
        each |= {"name": name, "label": name, "edges": [{"path": "lr", "end": "high", "remedy": name}]}
    written["stopped"] = name
    report = report_of(tmp_path, written, frame)
    assert "<script>" not in "".join(figure.svg for figure in drawn(report).values())
    text = markdown.render(report)
    rows = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in rows} <= set(range(3, 10))
    assert latex.render(report) and printed(report)


@pytest.mark.parametrize("scores", [[1e308], [-1e308], [0.0], [5e-324]])
def test_scores_of_any_size_are_drawn(scores, tmp_path):
    written, frame = fake_sweep.thresholds()
    for each in written["contenders"][1]["points"]:
        each["scores"] = scores
    report = report_of(tmp_path, written, frame)
    for figure in drawn(report).values():
        assert all(math.isfinite(mark.y) for drawing in drawings(figure) for mark in drawing.marks)
    assert printed(report) and words.headline(report.search)


def test_every_word_of_the_search_is_explained_in_the_pages(scenes):
    text = pages.text("results/README.md")
    headers = {
        column.title
        for report in scenes.values()
        for table in search_tables.tables(report.search)[:2]
        for column in table.columns
    }
    said = headers - {"contender"} | {CONFIRMED, OPTIMISTIC, PESSIMISTIC, NOT_CONFIRMED, NOT_SEARCHED}
    assert [word for word in sorted(said) if not re.search(rf"`{re.escape(word)}( %| \(\w+\))?`", text)] == []
    drawn_ = {name.partition("-")[0] for report in scenes.values() for name in drawn(report)}
    assert [name for name in sorted(drawn_) if f"`search-{name}`" not in text] == []


def among_noise(rng, *, is_fresh):
    """The winner of a search among points that are all alike, on fresh seeds or on those of the search."""
    none = [row | {"test/accuracy": rng.normal(0.9, 0.01)} for row in arm("none")]
    tried = rng.normal(0.9, 0.01, (100, 8))
    values = rng.normal(0.9, 0.01, 8) if is_fresh else tried[tried.mean(axis=1).argmax()]
    return pd.DataFrame(none + [row | {"test/accuracy": each} for row, each in zip(arm("a", 1.0), values, strict=True)])


def test_search_among_noise_finds_nothing_on_fresh_seeds_though_it_would_on_its_own():
    rng, of_search = (
        np.random.default_rng(0),
        ReportOptions(swept=sweep_file.SweepDocument(1, "", "tpe", "none", 100, (), (), (), "", "", ())),
    )
    better = {True: 0, False: 0}
    for is_fresh in (True, False):
        for _ in range(60):
            (only,) = compare(among_noise(rng, is_fresh=is_fresh), of_search).settings
            better[is_fresh] += any(row.verdict in GOOD for row in only.main)
    assert better[True] <= 0.05 * 60  # what chance may do
    assert better[False] >= 0.2 * 60
