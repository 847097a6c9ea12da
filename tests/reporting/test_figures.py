"""Figures: readable axes, honest pictures of what was measured, SVG that any reader opens."""

import io
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from importlib import resources

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipbench.analysis import curves as series
from clipbench.analysis.plateau import plateau
from clipbench.core.records import Records
from clipbench.plugins.registry import catalogue
from clipbench.reporting import ReportOptions, compare, figures, numbers
from clipbench.reporting.figures import cost, forest, heat_map, thresholds
from clipbench.reporting.figures.chart_axes import Scale, scale, tick_label
from clipbench.reporting.figures.drawing import COLORS, Panel
from clipbench.store.folder import Store
from tests.reporting.test_report import arm, compare_rows, diverged, quickstart, row
from tests.svg_reader import CHROMIUM, Drawing, browser_boxes, check_places, clashes, font_boxes

NORM_RULES = ("norm", "skip")
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
    return report, courses, {figure.name: figure for figure in figures.draw(report, courses, NORM_RULES)[0]}


def drawings(figure):
    return [Drawing(panel) for panel in figure.panels]


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
    assert tick_label(value) == text


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
    assert [panel.title for panel in drawn["thresholds"].panels] == ["Thresholds of norm", "Thresholds of value"]


def test_chosen_threshold_is_the_one_diamond(made_up):
    _, _, drawn = made_up
    for drawing, chosen in zip(drawings(drawn["thresholds"]), ("norm@1.0:", "value@0.01:"), strict=True):
        diamonds = [mark for mark in drawing.marks if mark.shape == "diamond"]
        assert [mark.text.startswith(chosen) for mark in diamonds] == [True]


def test_means_and_shares_of_clipped_steps_are_those_of_the_table_by_the_labels_of_the_axes(made_up):
    report, _, drawn = made_up
    for drawing, name in zip(drawings(drawn["thresholds"]), ("norm", "value"), strict=True):
        rows = thresholds.thresholds(report.settings[0], name)
        means = [mark for mark in drawing.marks if mark.text]
        shares = [mark for mark in drawing.marks if not mark.text]
        assert len(means) == len(shares) == len(rows)
        for mark, share, each in zip(means, shares, rows, strict=True):
            assert drawing.value_at_x(mark.x, 252, log=True) == pytest.approx(each.threshold, rel=0.03)
            assert drawing.value_at_y(mark.y, 46, 164) == pytest.approx(100 * each.value.mean, abs=0.1)
            assert drawing.value_at_y(share.y, 204, 252) == pytest.approx(100 * each.fired_share, abs=0.3)


def test_differences_and_their_intervals_are_those_of_the_table_by_the_labels_of_the_axis(made_up):
    report, _, drawn = made_up
    (drawing,) = drawings(drawn["differences"])
    rows = [each for each in report.settings[0].main if each.contrast]
    bottom = 26 + 38 * len(rows)
    bars = {line.y: line for line in drawing.of("line") if line.look["stroke-width"] == "2"}
    for mark, each in zip(drawing.marks, rows, strict=True):
        low, high = (drawing.value_at_x(x, bottom) for x, _ in bars[mark.y].points)
        expected = each.contrast.difference
        found = (low, drawing.value_at_x(mark.x, bottom), high)
        assert found == pytest.approx([100 * x for x in (expected.low, expected.mean, expected.high)], abs=0.05)
        assert mark.text.startswith(f"{each.arm}: {numbers.interval(expected, report.settings[0].metric)}, p")


def test_forest_puts_the_better_arm_to_the_right_of_the_worse(made_up):
    report, _, drawn = made_up
    by_name = drawings(drawn["differences"])[0].by_name()
    assert by_name["norm@1.0"].x > by_name["skip@100.0"].x > by_name["value@0.01"].x
    assert {by_name["norm@1.0"].shape, by_name["value@0.01"].shape, by_name["skip@100.0"].shape} == {
        "circle",
        "diamond",
        "ring",
    }
    assert row(report.settings[0], "norm@1.0").verdict == "best on validation"


def test_arm_without_a_finished_pair_has_words_instead_of_a_mark():
    only = compare_rows(arm("none") + diverged("norm", 1.0, range(8)))
    (drawing,) = drawings(forest.figure(only))
    assert not drawing.marks
    assert "diverged 8 of 8" in drawing.words


@pytest.mark.parametrize(("gain", "reaches"), [(0.0, False), (-0.05, True)])
def test_axis_goes_to_one_hundred_per_cent_only_where_that_leaves_room_for_the_differences(gain, reaches):
    rows = arm("none", spread=0.0) + [r for t in (0.1, 1.0) for r in arm("norm", t, gain=gain, spread=0.0)]
    (drawing,) = drawings(thresholds.figure(compare(pd.DataFrame(rows)).settings[0]))
    assert any(text.text == "100" and text.y < 150 for text in drawing.of("text")) == reaches


def test_everywhere_diverged_threshold_is_a_cross_on_the_ground():
    rows = arm("none") + arm("norm", 1.0) + arm("norm", 2.0) + diverged("norm", 9.0, range(8))
    (drawing,) = drawings(thresholds.figure(compare_rows(rows)))
    (cross,) = [mark for mark in drawing.marks if mark.shape == "cross"]
    assert cross.y == max(mark.y for mark in drawing.marks if mark.text) == 164


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
    assert Drawing(curves.panels[-1]).words.count("↑ above the axis") == 2


def test_curves_are_drawn_at_the_medians_and_bands_at_their_range_by_the_labels_of_the_axes(made_up):
    report, courses, drawn = made_up
    drawing = drawings(drawn["curves"])[0]
    curves = courses[row(report.settings[0], "norm@1.0").ids].curves
    for name, top, factor in (("train/loss", 46, 1), ("val/accuracy", 184, 100)):
        (line,) = [line for line in drawing.of("line", "blue") if top <= line.y <= top + 104]
        found = [drawing.value_at_y(y, top, top + 104) for _, y in line.points]
        assert found == pytest.approx(factor * curves[name].middle, abs=0.01 * factor)
        (band,) = [area for area in drawing.of("area", "blue") if top <= area.y <= top + 104]
        assert len(band.points) == 2 * len(curves[name].x)


def test_norms_are_drawn_before_and_after_clipping_by_the_labels_of_the_axis(made_up):
    drawing = drawings(made_up[2]["norms"])[1]
    for color, values in (("orange", (2.0, 3.0)), ("blue", (1.0, 1.0))):
        (line,) = drawing.of("line", color)
        found = [drawing.value_at_y(y, 46, 180, log=True) for _, y in line.points]
        assert values[0] * 0.99 <= min(found) <= max(found) <= values[1] * 1.01


# Norms and the thresholds that are held against them


def test_histogram_counts_every_step_of_the_baseline_once(made_up):
    report, courses, drawn = made_up
    norms = courses[row(report.settings[0], "none").ids].norms
    assert norms.counts.sum() == norms.sorted.size == 8 * 130
    assert norms.share_above(2.5) == 0.5 and norms.share_above(1.0) == 1 and norms.share_above(9.0) == 0
    assert courses[row(report.settings[0], "norm@1.0").ids].norms is None
    assert "norm@1.0 100 %; norm@5.0 0 %" in drawn["histogram"].panels[0].description


def test_thresholds_of_rules_on_the_norm_stand_on_its_axis_and_others_do_not(made_up):
    (drawing,) = drawings(made_up[2]["histogram"])
    found = drawing.by_name()
    assert set(found) == {"norm@0.1", "norm@0.5", "norm@1.0", "norm@5.0", "skip@100.0"}
    assert found["norm@1.0"].shape == "diamond"
    for name, mark in found.items():
        threshold = float(name.partition("@")[2])
        assert drawing.value_at_x(mark.x, 174 + 2 * 24, log=True) == pytest.approx(threshold, rel=0.02)


def test_bars_of_the_histogram_are_as_high_as_their_share_of_steps(made_up):
    report, courses, drawn = made_up
    (drawing,) = drawings(drawn["histogram"])
    counts = courses[row(report.settings[0], "none").ids].norms.counts
    found = [drawing.value_at_y(bar.y, 34, 174) for bar in drawing.of("box", "blue")]
    assert found == pytest.approx([100 * count / counts.sum() for count in counts if count], abs=0.3)


def test_rules_that_declare_a_norm_are_those_that_compare_the_whole_norm_with_a_threshold_and_remember_nothing():
    every = catalogue("strategy")
    found = [
        name
        for name, plugin in every.items()
        if {"n", "model_n"} & plugin.given and "threshold" in plugin.options and not plugin.facts["init"]
        if plugin.facts["on"] == "gradient" and ("model_n" in plugin.given or plugin.facts["per"] in ("model", "step"))
    ]
    assert {name for name, plugin in every.items() if plugin.facts["threshold_is_norm"]} == set(found)


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
    (drawing,) = drawings(cost.figure(only))
    found = drawing.by_name()
    assert {name: mark.shape for name, mark in found.items()} == {
        "none": "square", "a": "circle", "b": "ring", "c": "circle",
    }  # fmt: skip
    for each in only.main:
        mark = found[each.arm]
        assert drawing.value_at_x(mark.x, 222) == pytest.approx(each.step_us, rel=0.01)
        assert drawing.value_at_y(mark.y, 40, 222) == pytest.approx(100 * each.value.mean, abs=0.02)


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
    (drawing,) = drawings(drawn)
    words = drawing.words
    assert len(drawing.of("box")) == 3 * 3 + 1
    for setting in report.settings:
        for each in setting.rows:
            told = f"{each.arm}, {setting.label}: test/accuracy {numbers.estimate(each.value, setting.metric)}"
            (tile,) = [box for box in drawing.of("box") if box.text.startswith(told)]
            (x, y), (right, bottom) = tile.points
            inside = [text.text for text in drawing.of("text") if x < text.x < right and y < text.y < bottom]
            assert inside == ([numbers.number(100 * each.value.mean)] if math.isfinite(each.value.mean) else [])
    assert words[:2] == ["norm", "0.01"] and {"base", "1", "2", "4", "threshold of norm"} <= set(words)
    assert [mark.shape for mark in drawing.marks].count("diamond") == 3
    assert [mark.shape for mark in drawing.marks].count("cross") == 1
    assert "lr 0.1: best at 2" in drawing.label
    assert drawn.title == "How does the threshold move with lr?"


def test_map_is_darkest_where_the_metric_is_best_whatever_its_direction():
    for metric in ("test/accuracy", "test/loss"):
        rows = [r | {"test/loss": 1 - r["test/accuracy"]} for r in mapped()]
        report = compare(pd.DataFrame(rows), ReportOptions(metric=metric))
        metric = report.settings[0].metric
        best = max(row.value.mean * metric.sign for s in report.settings for row in s.rows)
        (drawing,) = drawings(figures.across(report)[0])
        darkest = max(drawing.of("box"), key=lambda box: box.opacity)
        assert darkest.opacity == pytest.approx(heat_map.STRONGEST)
        assert metric.sign * best == pytest.approx(float(darkest.text.split()[-3]) / numbers.scale(metric), rel=0.01)


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


def crowded():
    """Settings with long names and many thresholds, whose labels have little room."""
    names = ("norm", "a_strategy_with_a_very_long_name_that_no_axis_has_room_for", "value(per=tensor)")
    rows = [
        r
        for lr in (0.001, 0.01, 0.1)
        for name in names
        for t in np.geomspace(1e-4, 10, 12)
        for r in arm(name, float(f"{t:.3g}"), gain=0.01 * t, lr=lr, step_us=300 + 10 * t)
    ]
    rows += [r for lr in (0.001, 0.01, 0.1) for r in arm("none", lr=lr) + diverged("norm", 1e3, range(8), lr=lr)]
    return compare(pd.DataFrame(rows), ReportOptions(margin=0.005))


@pytest.fixture(scope="module")
def every_drawing(made_up):
    report = crowded()
    found = [*made_up[2].values(), *figures.across(report), *(f for some in figures.draw(report, {}) for f in some)]
    return [drawing for figure in found for drawing in drawings(figure)]


def test_no_words_overlap_in_a_wide_font(every_drawing):
    assert len(every_drawing) > 25
    for drawing in every_drawing:
        assert clashes(drawing, font_boxes(drawing)) == [], drawing.title


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine: install `chromium`")
def test_no_words_overlap_in_a_browser(every_drawing, tmp_path):
    for drawing, boxes in zip(every_drawing, browser_boxes(tmp_path, every_drawing), strict=True):
        assert clashes(drawing, boxes) == [], drawing.title


def test_words_that_overlap_are_found():
    panel = Panel(200, 50, "two words")
    panel.text(10, 20, "a long sentence of words")
    panel.text(40, 24, "another")
    assert clashes(Drawing(panel), font_boxes(Drawing(panel)))


def test_everything_stands_inside_its_panel(every_drawing):
    for drawing in every_drawing:
        check_places(drawing)


# SVG


def test_file_has_a_title_and_a_description_and_a_panel_its_label(made_up):
    name = "{http://www.w3.org/2000/svg}"
    for figure in made_up[2].values():
        root = ElementTree.fromstring(figure.svg)
        assert root.attrib["role"] == "img"
        assert root.find(f"{name}title").text == figure.title
        colored = [part.attrib for part in root.iter() if "class" in part.attrib]
        assert colored and all(part["color"] == COLORS[part["class"]] for part in colored)
        assert all(panel.description in root.find(f"{name}desc").text for panel in figure.panels)
        assert {part.tag.removeprefix(name) for part in root.iter()} <= {
            "svg", "title", "desc", "path", "rect", "text", "g",
        }  # fmt: skip
        for drawing, panel in zip(drawings(figure), figure.panels, strict=True):
            assert drawing.root.attrib["role"] == "img"
            assert drawing.label == f"{panel.title}. {panel.description}"
            assert len(panel.description) > 20 and any(sign.isdigit() for sign in panel.description)


def test_file_holds_the_title_the_caption_and_the_words_of_every_panel(made_up):
    name = "{http://www.w3.org/2000/svg}"
    for figure in made_up[2].values():
        root = ElementTree.fromstring(figure.svg)
        width, height = (float(root.attrib[side]) for side in ("width", "height"))
        words = [text.text for text in root.iter(f"{name}text")]
        assert figure.title in " ".join(words) and figure.caption in " ".join(words)
        assert [word for drawing in drawings(figure) for word in drawing.words] == words[
            -sum(len(drawing.words) for drawing in drawings(figure)) :
        ]
        for group, panel in zip(root.iter(f"{name}g"), figure.panels, strict=True):
            x, y = map(float, group.attrib["transform"].removeprefix("translate(").removesuffix(")").split())
            assert x >= 0 and x + panel.width <= width and y >= 0 and y + panel.height <= height


def test_units_are_written_at_every_axis(made_up):
    _, _, drawn = made_up
    units = {
        "differences": ["test/accuracy compared with none (pp)"],
        "thresholds": ["test/accuracy %", "steps clipped %", "threshold of norm"],
        "histogram": ["% of steps", "gradient norm before clipping, log axis"],
        "cost": ["test/accuracy % (higher is better)", "µs per step of one trial"],
        "curves": ["train/loss", "val/accuracy %", "epoch"],
        "norms": ["gradient norm, log axis", "step"],
        "divergence": ["threshold, log axis"],
    }
    assert list(units) == list(drawn)
    for name, expected in units.items():
        assert [unit for unit in expected if unit not in drawings(drawn[name])[0].words] == [], name


def test_same_report_is_drawn_the_same_to_the_byte(made_up):
    report, courses, drawn = made_up
    again = figures.draw(report, courses, NORM_RULES)[0]
    assert [figure.svg for figure in again] == [figure.svg for figure in drawn.values()]
    assert again[0].png == drawn["differences"].png


def test_picture_has_the_shape_of_the_file_and_shows_words_whatever_fonts_the_machine_has(made_up):
    figure = made_up[2]["thresholds"]
    picture = pyplot_image(figure.png)
    root = ElementTree.fromstring(figure.svg)
    assert picture.shape[:2] == pytest.approx(
        (2 * float(root.attrib["height"]), 2 * float(root.attrib["width"])), abs=2
    )
    title = picture[20:70, 40:700, :3]  # of black letters on white
    assert (picture[0, 0, :3] == 1).all() and (title < 0.3).all(axis=2).mean() > 0.02


def pyplot_image(png):
    return matplotlib.image.imread(io.BytesIO(png))


def test_users_names_stay_text_in_svg():
    only = compare_rows(arm("none") + [r for t in (1.0, 2.0) for r in arm('<b>"&\x00]]>', t)])
    for figure in (forest.figure(only), thresholds.figure(only)):
        for text in (figure.svg, *(panel.svg for panel in figure.panels)):
            ElementTree.fromstring(text)
            assert "<b>" not in text


def test_figures_say_with_shape_or_dash_what_they_say_with_colour(made_up):
    lines = drawings(made_up[2]["norms"])[1].of("line")
    looks = {(line.color, line.look.get("stroke-dasharray")) for line in lines if line.look["stroke-width"] == "1.5"}
    assert looks == {("orange", "5 3"), ("blue", None)}


def test_every_shape_has_a_colour_that_themes_know(every_drawing):
    style = resources.files("clipbench.reporting.formats").joinpath("templates/style.css").read_text("utf-8")
    for drawing in every_drawing:
        for shape in drawing.shapes:
            assert shape.color in COLORS
            assert f"svg .{shape.color} {{ color: var(--{shape.color}); }}" in style


@pytest.mark.parametrize("values", [[1e-320, 1e308], [5e307, 1.7e308], [-1.7e308, 1.7e308], [1e-9, 1.7e308]])
@pytest.mark.parametrize("log", [False, True])
def test_axis_of_what_diverged_has_ticks_and_places(values, log):
    found = scale(values, 0.0, 100.0, log=log)
    assert found.ticks
    assert all(0.0 <= found(value) <= 100.0 for value in values)
