"""Figures: readable axes, honest pictures of what was measured, SVG that any reader opens."""

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipbench.analysis import curves as series
from clipbench.analysis.plateau import plateau
from clipbench.core.records import Records
from clipbench.plugins.registry import catalogue
from clipbench.reporting import ReportOptions, compare, figures
from clipbench.reporting.figures import cost, drawing, forest, heat_map, histogram, svg, thresholds
from clipbench.reporting.figures.drawing import Line, Mark, Words, sheet
from clipbench.reporting.figures.scale import Scale, label, scale
from clipbench.store import Store
from tests.reporting.test_report import arm, compare_rows, diverged, quickstart, row

NAMES = ("differences", "thresholds", "histogram", "cost", "curves", "norms", "divergence")


def stored(folder, frame, epochs=4, steps=130):
    """A store of these trials, with series that a formula gives: loss 1/epoch, norms 2 and 1."""
    ids = frame["id"].to_numpy()
    epoch = np.tile(np.arange(1, epochs + 1), len(ids))
    step = np.tile(np.arange(1, steps + 1), len(ids))
    store = Store(folder)
    store.save(
        Records(
            {name: frame[name].to_numpy() for name in frame},
            {
                "id": np.repeat(ids, epochs),
                "epoch": epoch,
                "train/loss": 1.0 / epoch,
                "val/accuracy": 1 - 0.5 / epoch,
            },
            {
                "id": np.repeat(ids, steps),
                "step": step,
                "grad_norm/pre": 2.0 + step % 2,
                "grad_norm/post": np.ones(len(step)),
            },
        ),
        "0-0",
    )
    return store


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """The report of the made-up quickstart, its courses and its figures."""
    store = stored(tmp_path_factory.mktemp("store"), quickstart())
    report = compare(store.records(), ReportOptions(margin=0.005), name="quickstart")
    courses = series.read(store, report)
    return report, courses, {figure.name: figure for figure in figures.draw(report, courses)[0]}


# Axes


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5),
    st.booleans(),
)
def test_every_value_stands_between_the_ends_and_ticks_too(values, log):
    axis = scale(values, 0, 100, log=log)
    assert all(0 <= axis(value) <= 100 for value in values)
    assert all(axis.low <= value * (1 + 1e-9) and value <= axis.high * (1 + 1e-9) for value, _ in axis.ticks)
    assert len(axis.ticks) <= 16


@pytest.mark.parametrize("values", [(0.02, 5.0), (1e-4, 1e4), (0.3, 0.5), (70.0, 70.1), (-3.0, 12.0), (5.0,), ()])
def test_axes_have_at_least_two_and_at_most_nine_ticks(values):
    for log in (False, True):
        if not log or min(values, default=1) > 0:
            assert 2 <= len(scale(values, 0, 100, log=log).ticks) <= 9, (values, log)


@pytest.mark.parametrize(
    ("value", "text"), [(0.001, "0.001"), (1e-5, "10⁻⁵"), (2e6, "2·10⁶"), (0.0, "0"), (12.5, "12.5"), (-4.0, "-4")]
)
def test_ticks_are_written_without_a_computers_exponent(value, text):
    assert label(value) == text


def test_log_axis_gives_each_decade_the_same_room():
    axis = Scale(0.01, 1.0, 0, 100, log=True)
    assert axis(0.1) == pytest.approx(50)


# What is drawn


def test_every_figure_is_there_where_there_is_something_to_show(made_up):
    _, _, drawn = made_up
    assert tuple(drawn) == NAMES


def test_nothing_diverged_leaves_out_the_map_and_no_thresholds_leave_out_their_figure():
    report = compare(pd.DataFrame(arm("none") + arm("norm", 1.0)))
    assert [figure.name for figure in figures.draw(report, {})[0]] == ["differences", "cost"]
    assert figures.draw(compare(pd.DataFrame()), {}) == []


def test_only_strategies_with_several_thresholds_are_drawn_over_them(made_up):
    _, _, drawn = made_up
    assert [cell.title for cell in drawn["thresholds"].cells] == ["Thresholds of norm", "Thresholds of value"]


def test_chosen_threshold_is_the_one_diamond(made_up):
    _, _, drawn = made_up
    for cell, chosen in zip(drawn["thresholds"].cells, ("norm@1:", "value@0.01:"), strict=True):
        diamonds = [shape for shape in cell.shapes if isinstance(shape, Mark) and shape.shape == "diamond"]
        assert [mark.title.startswith(chosen) for mark in diamonds] == [True]


def test_forest_puts_the_better_arm_to_the_right_of_the_worse(made_up):
    report, _, drawn = made_up
    marks = [shape for shape in drawn["differences"].cells[0].shapes if isinstance(shape, Mark)]
    by_name = {mark.title.split(":")[0]: mark for mark in marks}
    assert by_name["norm@1"].x > by_name["skip@100"].x > by_name["value@0.01"].x
    assert {by_name["norm@1"].shape, by_name["value@0.01"].shape, by_name["skip@100"].shape} == {
        "circle",
        "diamond",
        "ring",
    }
    assert row(report.settings[0], "norm@1.0").verdict == "best"


def test_arm_without_a_finished_pair_has_words_instead_of_a_mark():
    only = compare_rows(arm("none") + diverged("norm", 1.0, range(8)))
    shapes = forest.figure(only).cells[0].shapes
    assert not [shape for shape in shapes if isinstance(shape, Mark)]
    assert "diverged 8 of 8" in [shape.text for shape in shapes if isinstance(shape, Words)]


@pytest.mark.parametrize(("gain", "reaches"), [(0.0, False), (-0.05, True)])
def test_axis_goes_to_one_hundred_per_cent_only_where_that_leaves_room_for_the_differences(gain, reaches):
    rows = arm("none", spread=0.0) + [r for t in (0.1, 1.0) for r in arm("norm", t, gain=gain, spread=0.0)]
    (drawing,) = thresholds.figure(compare(pd.DataFrame(rows)).settings[0]).cells
    assert (
        any(isinstance(shape, Words) and shape.text == "100" and shape.y < 150 for shape in drawing.shapes) == reaches
    )


def test_everywhere_diverged_threshold_is_a_cross_on_the_ground():
    rows = arm("none") + arm("norm", 1.0) + arm("norm", 2.0) + diverged("norm", 9.0, range(8))
    shapes = thresholds.figure(compare_rows(rows)).cells[0].shapes
    (cross,) = [shape for shape in shapes if isinstance(shape, Mark) and shape.shape == "cross"]
    assert cross.y == max(shape.y for shape in shapes if isinstance(shape, Mark) and shape.size > 3)


def test_plateau_holds_neighbours_within_a_standard_error_and_nothing_beyond_a_gap():
    gains = {1.0: 0.0, 2.0: 0.03, 3.0: 0.0301, 4.0: 0.0, 5.0: 0.0299}
    rows = arm("none") + [r for t, gain in gains.items() for r in arm("norm", t, gain=gain, spread=1e-4)]
    only = compare_rows(rows)
    assert [each.threshold for each in plateau(only, "norm")] == [2.0, 3.0]
    assert plateau(only, "none") == ()


def test_curves_are_the_quantiles_of_the_seeds(made_up):
    report, courses, _ = made_up
    course = courses[row(report.settings[0], "none").ids]
    assert course.curves["train/loss"].middle == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert course.curves["val/accuracy"].x.tolist() == [1, 2, 3, 4]
    assert course.curves["grad_norm/pre"].low == pytest.approx(np.full(44, 2.0))
    assert course.curves["grad_norm/pre"].x[-1] == 130


def test_curve_that_leaves_the_axes_is_cut_and_says_so(made_up):
    report, courses, _ = made_up
    (setting,) = report.settings
    far = {
        name: replace(curve, middle=1e30 * curve.middle, high=1e30 * curve.high)
        for name, curve in courses[row(setting, "zero@0.01").ids].curves.items()
    }
    lost = replace(row(setting, "zero@0.01"), diverged=8)
    main = tuple(lost if each.arm == lost.arm else each for each in setting.main)
    changed = replace(report, settings=(replace(setting, main=main),))
    drawn = figures.draw(changed, {**courses, lost.ids: series.ArmCurves(far)})[0]
    (curves,) = [figure for figure in drawn if figure.name == "curves"]
    words = [shape.text for shape in curves.cells[-1].shapes if isinstance(shape, Words)]
    assert words.count("↑ above the axis") == 2


def marks(cell):
    return {shape.title.split(":")[0].split(",")[0]: shape for shape in cell.shapes if isinstance(shape, Mark)}


# Norms and the thresholds that are held against them


def test_histogram_counts_every_step_of_the_baseline_once(made_up):
    report, courses, drawn = made_up
    norms = courses[row(report.settings[0], "none").ids].norms
    assert norms.counts.sum() == norms.sorted.size == 8 * 130
    assert norms.share_above(2.5) == 0.5 and norms.share_above(1.0) == 1 and norms.share_above(9.0) == 0
    assert courses[row(report.settings[0], "norm@1.0").ids].norms is None
    assert "norm@1 100 %; norm@5 0 %" in drawn["histogram"].cells[0].description


def test_thresholds_of_rules_on_the_norm_stand_on_its_axis_and_others_do_not(made_up):
    found = marks(made_up[2]["histogram"].cells[0])
    assert set(found) == {"norm@0.1", "norm@0.5", "norm@1", "norm@5", "skip@100"}
    assert found["norm@1"].shape == "diamond"
    assert found["norm@0.1"].x < found["norm@0.5"].x < found["norm@1"].x < found["norm@5"].x


def test_rules_on_the_norm_are_those_that_compare_the_whole_norm_with_a_threshold_and_remember_nothing():
    found = [
        name
        for name, plugin in catalogue("strategy").items()
        if {"n", "model_n"} & plugin.given and "threshold" in plugin.options and not plugin.facts["init"]
        if plugin.facts["on"] == "gradient" and ("model_n" in plugin.given or plugin.facts["per"] in ("model", "step"))
    ]
    assert set(histogram.ON_THE_NORM) == set(found)


@pytest.mark.parametrize("values", [[], [1.0] * 100, [0.0] * 100, [1.0, 2.0]])
def test_too_few_norms_make_no_histogram(values):
    assert series.histogram_of(np.array(values)) is None


def test_a_few_huge_norms_do_not_squeeze_the_others_into_a_bar():
    norms = series.histogram_of(np.concatenate([np.geomspace(1, 2, 10_000), [1e300]]))
    assert norms.edges[-1] < 2.1 and norms.counts.sum() == 10_001


# Cost


def costly(name, gain, step_us):
    return arm(name, gain=gain, spread=1e-4, step_us=step_us)


def test_front_holds_what_no_other_arm_beats_in_both():
    rows = costly("none", 0, 50.0) + costly("a", 0.02, 60.0) + costly("b", 0.01, 70.0) + costly("c", 0.03, 90.0)
    only = compare_rows(rows)
    assert [each.arm for each in cost.pareto(only, only.main)] == ["none", "a", "c"]
    found = marks(cost.figure(only).cells[0])
    assert {name: mark.shape for name, mark in found.items()} == {
        "none": "square", "a": "circle", "b": "ring", "c": "circle",
    }  # fmt: skip
    assert found["c"].y < found["a"].y < found["none"].y and found["none"].x < found["a"].x < found["c"].x


def test_front_follows_the_direction_of_the_metric():
    rows = [r | {"test/loss": 1 - r["test/accuracy"]} for r in costly("none", 0, 50.0) + costly("a", 0.02, 60.0)]
    only = compare_rows(rows, metric="test/loss")
    assert [each.arm for each in cost.pareto(only, only.main)] == ["none", "a"]


def test_arms_without_a_mean_or_a_time_are_not_drawn_and_one_alone_is_no_figure():
    assert cost.figure(compare_rows(arm("none") + diverged("norm", 1.0, range(8)))) is None


# A map of thresholds and another axis


def mapped(axis="lr", values=(0.01, 0.1, 1.0), **other):
    return [
        r
        for value in values
        for r in arm("none", **{axis: value}, **other)
        + [r for t in (1.0, 2.0) for r in arm("norm", t, gain=0.01 * t, **{axis: value}, **other)]
    ]


def test_map_has_a_row_a_setting_and_a_column_a_threshold_beside_the_baseline():
    report = compare(pd.DataFrame(mapped() + diverged("norm", 4.0, range(8), lr=1.0)))
    (drawn,) = figures.across(report)
    (cell,) = drawn.cells
    tiles = [shape for shape in cell.shapes if isinstance(shape, drawing.Area)]
    words = [shape.text for shape in cell.shapes if isinstance(shape, Words)]
    assert len(tiles) == 3 * 3 + 1
    assert words[:2] == ["norm", "0.01"] and {"base", "1", "2", "4", "threshold of norm"} <= set(words)
    assert [mark.shape for mark in cell.shapes if isinstance(mark, Mark)].count("diamond") == 3
    assert [mark.shape for mark in cell.shapes if isinstance(mark, Mark)].count("cross") == 1
    assert "lr 0.1: best at 2" in cell.description
    assert drawn.title == "How does the threshold move with lr?"


def test_map_is_darkest_where_the_metric_is_best_whatever_its_direction():
    for metric in ("test/accuracy", "test/loss"):
        rows = [r | {"test/loss": 1 - r["test/accuracy"]} for r in mapped()]
        report = compare(pd.DataFrame(rows), ReportOptions(metric=metric))
        best = max(row.value.mean * s.metric.sign for s in report.settings for row in s.rows)
        (cell,) = figures.across(report)[0].cells
        strongest = max(shape.opacity for shape in cell.shapes if isinstance(shape, drawing.Area))
        assert strongest == pytest.approx(heat_map.STRONGEST) and best


def test_each_family_of_settings_has_a_map_of_its_own():
    report = compare(pd.DataFrame(mapped(data="a") + mapped(data="b")))
    drawn = figures.across(report)
    assert [figure.name for figure in drawn] == ["heat", "heat-2"]
    assert [figure.title.rpartition("? ")[2] for figure in drawn] == ["(data=a)", "(data=b)"]


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        (arm("none") + arm("norm", 1.0), 0),
        (mapped(values=(0.1,)), 0),
        (mapped("optimizer", ("sgd", "adam")), 1),
        (mapped("data", ("a", "b")), 0),
        (mapped("train.batch_size", (16, 64)), 1),
    ],
)
def test_map_is_there_where_there_are_thresholds_and_an_axis(rows, count):
    assert len(figures.across(compare(pd.DataFrame(rows)))) == count


def test_labels_of_an_axis_do_not_overlap(made_up):
    for figure in made_up[2].values():
        for cell in figure.cells:
            texts = [shape for shape in cell.shapes if isinstance(shape, Words) and shape.text]
            for n, one in enumerate(texts):
                for other in texts[n + 1 :]:
                    assert not overlap(one, other), (figure.name, one.text, other.text)


def overlap(one, other):
    return abs(one.y - other.y) < 9 and min(right(one), right(other)) - max(left(one), left(other)) > 0.5


def left(words):
    width = drawing.width_of(words.text, words.size)
    return words.x - {"start": 0, "middle": width / 2, "end": width}[words.anchor]


def right(words):
    return left(words) + drawing.width_of(words.text, words.size)


def test_everything_stands_on_its_sheet(made_up):
    for figure in made_up[2].values():
        whole = sheet(figure)
        for shape in whole.shapes:
            places = shape.points if isinstance(shape, Line | drawing.Area) else [(shape.x, shape.y)]
            assert all(0 <= x <= whole.width and 0 <= y <= whole.height for x, y in places), (figure.name, shape)
            assert all(math.isfinite(value) for place in places for value in place)


# SVG


def test_svg_is_xml_with_a_title_and_words_for_those_who_do_not_see(made_up):
    for figure in made_up[2].values():
        root = ElementTree.fromstring(svg.render(sheet(figure)))
        name = "{http://www.w3.org/2000/svg}"
        assert root.attrib["role"] == "img"
        assert root.find(f"{name}title").text == figure.title
        assert len(root.find(f"{name}desc").text) > 20
        assert {part.tag.removeprefix(name) for part in root.iter()} <= {
            "svg", "title", "desc", "path", "circle", "text",
        }  # fmt: skip


def test_users_names_stay_text_in_svg():
    only = compare_rows(arm("none") + [r for t in (1.0, 2.0) for r in arm('<b>"&\x00]]>', t)])
    for figure in (forest.figure(only), thresholds.figure(only)):
        text = svg.render(sheet(figure))
        ElementTree.fromstring(text)
        assert "<b>" not in text


def test_figures_say_with_shape_or_dash_what_they_say_with_colour(made_up):
    cell = made_up[2]["norms"].cells[1]
    looks = {(shape.color, shape.dash) for shape in cell.shapes if isinstance(shape, Line) and shape.width == 1.5}
    assert looks == {("orange", "5 3"), ("blue", "")}


def test_every_shape_has_a_colour_that_themes_know(made_up):
    used = {shape.color for figure in made_up[2].values() for cell in figure.cells for shape in cell.shapes}
    assert used <= set(drawing.COLORS)


@pytest.mark.parametrize("values", [[1e-320, 1e308], [5e307, 1.7e308], [-1.7e308, 1.7e308], [1e-9, 1.7e308]])
@pytest.mark.parametrize("log", [False, True])
def test_axis_of_what_diverged_has_ticks_and_places(values, log):
    found = scale(values, 0.0, 100.0, log=log)
    assert found.ticks
    assert all(0.0 <= found(value) <= 100.0 for value in values)
