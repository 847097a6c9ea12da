"""Figures: readable axes, honest pictures of what was measured, SVG that any reader opens."""

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipbench.report import Options, compare, figures, series
from clipbench.report.figures import drawing, forest, svg, thresholds
from clipbench.report.figures.drawing import Line, Mark, Words, sheet
from clipbench.report.figures.scale import Scale, label, scale
from clipbench.report.plateau import plateau
from clipbench.store import Store
from clipbench.trial import Records
from tests.test_report import arm, compare_rows, diverged, quickstart, row

NAMES = ("differences", "thresholds", "curves", "norms", "divergence")


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
    report = compare(store.records(), Options(margin=0.005), name="quickstart")
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
    assert [figure.name for figure in figures.draw(report, {})[0]] == ["differences"]
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
    _, courses, _ = made_up
    course = courses[0, "none"]
    assert course.curves["train/loss"].middle == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert course.curves["val/accuracy"].x.tolist() == [1, 2, 3, 4]
    assert course.curves["grad_norm/pre"].low == pytest.approx(np.full(44, 2.0))
    assert course.curves["grad_norm/pre"].x[-1] == 130


def test_curve_that_leaves_the_axes_is_cut_and_says_so(made_up):
    report, courses, _ = made_up
    (setting,) = report.settings
    far = {
        name: replace(curve, middle=1e30 * curve.middle, high=1e30 * curve.high)
        for name, curve in courses[0, "zero@0.01"].curves.items()
    }
    lost = replace(row(setting, "zero@0.01"), diverged=8)
    main = tuple(lost if each.arm == lost.arm else each for each in setting.main)
    changed = replace(report, settings=(replace(setting, main=main),))
    drawn = figures.draw(changed, {**courses, (0, lost.arm): series.Course(far)})[0]
    (curves,) = [figure for figure in drawn if figure.name == "curves"]
    words = [shape.text for shape in curves.cells[-1].shapes if isinstance(shape, Words)]
    assert words.count("↑ above the axis") == 2


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
