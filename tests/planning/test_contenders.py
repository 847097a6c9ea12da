"""What a sweep searches: contenders and hyperparameters of a plan, and the trials that their values make."""

import itertools
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipbench.errors import InputError
from clipbench.planning.build import prepare
from clipbench.planning.contender import MOST_GIVEN, Contender, Hyperparameter
from clipbench.planning.find_contenders import contenders
from clipbench.plugins import registry

GOOD = """\
data: {name: wine, limit: 60}
model: linear
optimizer: {name: sgd, lr: 0.1}
train: {epochs: 1}
clip: [none, {name: norm, threshold: 1.0}]
seeds: 2
"""


@pytest.fixture
def plan(tmp_path):
    """The plan of the good experiment with some of its sections replaced."""

    def planned(*sections, sets=(), seeds=None):
        replaced = {section.split(":")[0] for section in sections}
        kept = [line for line in GOOD.splitlines() if line.split(":")[0] not in replaced]
        path = tmp_path / "good.yaml"
        path.write_text("\n".join([*kept, *sections]) + "\n")
        return prepare(str(path), sets, seeds)

    return planned


@pytest.fixture
def found(plan):
    """The contenders of such a plan, by their labels."""

    def named(*sections, **options):
        return {contender.label: contender for contender in contenders(plan(*sections, **options))}

    return named


def threshold(contender: Contender) -> Hyperparameter:
    [param] = [param for param in contender.hyperparameters if param.path == "threshold"]
    return param


def said(plan, *sections):
    with pytest.raises(InputError) as caught:
        contenders(plan(*sections))
    return str(caught.value)


# The trials of a point are those that the YAML makes of its values


GRIDS = {
    "thresholds": ["clip: [none, {name: norm, threshold: [0.5, 1, 2]}, {name: zero, threshold: {log: [0.01, 1]}}]"],
    "a range whose points have many digits": ["clip: {name: value, threshold: {log: [0.001, 0.1], points: 7}}"],
    "thresholds beside learning rates that are searched": [
        "optimizer: {name: sgd, lr: [0.1, 0.03, 0.012345678], momentum: 0.9}",
        "clip: [none, {name: norm, p: inf, threshold: [0.5, 2]}]",
        "sweep: {search: {optimizer.lr: {log: [0.01, 1]}}}",
    ],
    "an option of the rule that is searched": [
        "clip: {name: autoclip, per: tensor, window: [10, 100, 1000], exclude: ['*bias'], threshold: [10, 50]}",
        "sweep: {search: {clip.window: {log: [10, 1000]}}}",
    ],
    "lists as choices": [
        "optimizer: {name: adam, betas: [[0.9, 0.999], [0.5, 0.9]], lr: 0.01}",
        "sweep: {search: {optimizer.betas: [[0.5, 0.9], [0.9, 0.999]]}}",
    ],
    "folds": ["data: {name: wine, limit: 60, folds: 3}"],
    "parts of a batch, schedules and warmup": [
        "clip: [{name: norm, threshold: [1, 2], scope: [batch, {shards: 2}]}, "
        "{name: norm, threshold: 1, warmup: 3, schedule: [null, linear]}]",
    ],
}


@pytest.mark.parametrize("sections", GRIDS.values(), ids=GRIDS)
def test_points_of_the_yaml_are_the_trials_of_its_plan(plan, sections):
    planned = plan(*sections)
    searched = [contender for contender in contenders(planned) if contender.hyperparameters]
    points = [(contender, point) for contender in searched for point in contender.given()]
    trials = [trial for contender, point in points for trial in contender.trials(point, planned.experiment.seeds)]
    known = {trial.id: trial for trial in planned.trials if trial.clip.name != "none" or len(searched) > 1}
    assert len(trials) == len({trial.id for trial in trials})
    wanted = {id_: trial for id_, trial in known.items() if any(trial.strategy == each.strategy for each in trials)}
    assert {trial.id for trial in trials} == set(wanted)
    for trial in trials:
        assert trial.columns() == known[trial.id].columns()
        assert (trial.arm, trial.strategy) == (known[trial.id].arm, known[trial.id].strategy)
        assert trial.optimizer.label == known[trial.id].optimizer.label


@pytest.mark.parametrize("name", [n for n, p in registry.catalogue("strategy").items() if "threshold" in p.options])
def test_a_searched_threshold_makes_the_trial_that_the_yaml_makes_of_it(plan, name):
    [contender] = contenders(plan(f"clip: {{name: {name}, threshold: 1.5}}"))
    [param] = contender.hyperparameters
    value = param.rounded(param.low + 0.4 * (param.high - param.low))
    made = contender.trials({"threshold": value}, (0, 1))
    again = plan(f"clip: {{name: {name}, threshold: {value!r}}}").trials
    assert [trial.id for trial in made] == [trial.id for trial in again]
    assert [trial.columns() for trial in made] == [trial.columns() for trial in again]


def test_a_searched_option_is_said_in_the_label_where_the_yaml_would_say_it(plan):
    sweep = "sweep: {search: {clip.alpha: {linear: [0.5, 0.99]}, optimizer.momentum: {linear: [0, 0.9]}}}"
    [contender] = contenders(plan("clip: {name: zclip, threshold: 2}", sweep))
    assert contender.name == "zclip"
    values = {"threshold": 2.0, "clip.alpha": 0.9, "optimizer.momentum": 0.5}
    [made] = contender.trials(values, [7])
    [again] = plan(
        "clip: {name: zclip, threshold: 2, alpha: 0.9}", "optimizer: {name: sgd, lr: 0.1, momentum: 0.5}", "seeds: [7]"
    ).trials
    assert (made.id, made.arm, made.optimizer.label) == (again.id, again.arm, again.optimizer.label)
    assert made.arm == "zclip(alpha=0.9)@2.0"


def test_a_point_is_trained_on_every_fold_and_seed(found):
    contender = found("data: {name: wine, limit: 60, folds: 4}")["norm"]
    trials = contender.trials({"threshold": 0.3}, (5, 6, 7))
    assert len({trial.id for trial in trials}) == 12
    assert {(trial.data["fold"], trial.seed) for trial in trials} == set(itertools.product(range(4), (5, 6, 7)))


# What is a contender of its own


def test_a_strategy_is_one_contender_whatever_its_thresholds(found):
    clip = "clip: [none, {name: norm, threshold: [1, 2]}, {name: norm, threshold: 3}, {name: norm, p: 1, threshold: 1}]"
    named = found(clip)
    assert list(named) == ["none", "norm", "norm(p=1.0)"]
    assert threshold(named["norm"]).given == (1.0, 2.0, 3.0)
    assert named["none"].hyperparameters == ()


def test_settings_are_told_apart_by_what_differs(found):
    optimizer = "optimizer: [{name: sgd, lr: [0.1, 0.01], momentum: 0.9}, {name: adam, lr: 0.001}]"
    settings = ["sgd, lr=0.1", "sgd, lr=0.01", "adam, lr=0.001"]
    assert list(found(optimizer)) == [f"{name} ({setting})" for setting in settings for name in ("none", "norm")]


def test_learning_rates_that_are_searched_are_no_settings(found):
    optimizer = "optimizer: [{name: sgd, lr: [0.1, 0.01], momentum: 0.9}, {name: adam, lr: 0.001}]"
    named = found(optimizer, "sweep: {search: {'optimizer[0].lr': {log: [0.01, 1]}}}")
    assert list(named) == ["none (sgd)", "norm (sgd)", "none (adam)", "norm (adam)"]
    assert [param.path for param in named["none (sgd)"].hyperparameters] == ["lr"]
    assert named["none (sgd)"].hyperparameters[0].given == (0.1, 0.01)
    assert [param.path for param in named["norm (adam)"].hyperparameters] == ["threshold"]


def test_a_path_with_an_index_goes_before_one_without(found):
    search = "{optimizer.lr: {log: [0.01, 1]}, 'optimizer[1].lr': {log: [0.0001, 0.1]}}"
    named = found("optimizer: [{name: sgd, lr: 1}, {name: adam, lr: 0.001}]", f"sweep: {{search: {search}}}")
    [sgd], [adam] = named["none (sgd)"].hyperparameters, named["none (adam)"].hyperparameters
    assert (sgd.low, sgd.high, sgd.key) == (0.01, 1.0, 'sweep.search."optimizer.lr"')
    assert (adam.low, adam.high, adam.key) == (0.0001, 0.1, 'sweep.search."optimizer[1].lr"')


# Which thresholds are searched


def test_a_range_of_the_yaml_is_searched_as_it_stands(found):
    param = threshold(found("clip: {name: norm, threshold: {linear: [0.5, 50], points: 3}}")["norm"])
    assert (param.low, param.high, param.log, param.key) == (
        0.5,
        50.0,
        False,
        "clip.threshold",
    )
    assert param.given == (0.5, 25.25, 50.0)


def test_without_a_range_it_is_that_of_the_rule_and_holds_the_yamls_values(found):
    low = registry.find("strategy", "norm").facts["search"][0]
    param = threshold(found("clip: [none, {name: norm, threshold: [1, 1000]}]")["norm"])
    assert (param.low, param.high, param.log, param.key) == (
        low,
        1000.0,
        True,
        "clip[1].threshold",
    )
    assert param.given == (1.0, 1000.0)


def test_narrow_ranges_of_rules_are_searched_as_they_are(found):
    param = threshold(found("clip: {name: adagc, threshold: 1.5}")["adagc"])
    assert (param.low, param.high, param.log) == (1.01, 2.0, False)


def test_a_threshold_that_is_off_or_zero_is_no_point_of_the_search(found):
    contender = found("clip: {name: norm, threshold: [null, 0, 1]}")["norm"]
    assert threshold(contender).given == (1.0,)
    assert threshold(contender).low > 0
    assert all(template.threshold is not None for template in contender.templates)
    assert contender.left_out == ("norm@off", "norm@0.0")


def test_a_strategy_that_is_only_off_has_no_threshold_to_search(found):
    clip = (
        "clip: [{name: norm, threshold: 1}, {name: value, threshold: null}, {name: value, threshold: inf, lower: -1}]"
    )
    named = found(clip)
    assert named["value"].hyperparameters == named["value(lower=-1.0)"].hyperparameters == ()
    [trial] = named["value"].trials({}, [3])
    assert trial.arm == "value@off"


def test_sweep_search_goes_before_the_ranges_of_the_arms(found):
    named = found(
        "clip: [{name: norm, threshold: {log: [1, 10]}}, {name: value, threshold: 1}]",
        "sweep: {search: {clip.threshold: {log: [0.5, 5]}, 'clip[1].threshold': [0.5, 1]}}",
    )
    norm, value = threshold(named["norm"]), threshold(named["value"])
    assert (norm.low, norm.high, norm.key) == (0.5, 5.0, 'sweep.search."clip.threshold"')
    assert norm.given == (1.0, 1.77828, 3.16228)
    assert (value.choices, value.given) == ((0.5, 1.0), (1.0,))
    assert named["value"].size == 2


@pytest.mark.parametrize(
    "sections",
    [
        ["clip: {name: norm, threshold: [1, 2]}"],
        ["clip: [none, normalize]"],
        ["clip: [none, {name: [norm, value], threshold: {log: [0.1, 1]}}]"],
        ["optimizer: [sgd, adam]", "sweep: {search: {'optimizer[1].lr': {log: [0.01, 1]}, clip.threshold: [1, 2]}}"],
    ],
)
def test_a_wider_range_can_be_set_by_the_key_of_a_hyperparameter(found, sections):
    keys = {param.key for contender in found(*sections).values() for param in contender.hyperparameters}
    for key in keys:
        named = found(*sections, sets=[f"{key}={{log: [0.003, 300]}}"])
        hyperparameters = [
            param for contender in named.values() for param in contender.hyperparameters if param.key == key
        ]
        assert hyperparameters
        assert {(param.low, param.high, param.log) for param in hyperparameters} == {(0.003, 300.0, True)}


def test_built_in_rules_with_a_threshold_say_what_is_worth_a_search():
    rules = [rule for rule in registry.catalogue("strategy").values() if "threshold" in rule.options]
    assert all(rule.facts["search"] for rule in rules)


OWN = """\
import clipbench

@clipbench.strategy(per="model")
def mine(n, threshold):
    return (threshold / n).clamp(max=1), n > threshold
"""


def test_a_rule_without_a_range_is_a_mistake_with_its_place(plan, tmp_path):
    (tmp_path / "rules.py").write_text(OWN)
    text = said(plan, "clip: [none, {name: './rules.py:mine', threshold: 1}]")
    assert "good.yaml:6:51: clip[1].threshold: ./rules.py:mine declares no range of thresholds to search." in text
    assert "Write a range: threshold: {log: [0.01, 100]}." in text
    named = contenders(plan("clip: [none, {name: './rules.py:mine', threshold: {log: [0.1, 10]}}]"))
    assert threshold(named[1]).high == 10


def test_entries_of_a_strategy_that_nobody_could_tell_apart_are_a_mistake(plan):
    clip = "clip: [{name: autoclip, threshold: 10}, {name: autoclip, threshold: 50}]"
    text = said(plan, clip, "sweep: {search: {'clip[0].window': [10, 100]}}")
    assert "clip[0]: autoclip occurs several times, and some options are searched in only one of them." in text
    [one] = contenders(plan(clip, "sweep: {search: {clip.window: [10, 100]}}"))
    assert threshold(one).given == (10.0, 50.0)


def test_an_experiment_without_anything_to_search_says_so(plan):
    assert "clip: there is nothing to search: no strategy here has a threshold." in said(plan, "clip: [none, sign]")


def test_the_baseline_has_hyperparameters_where_an_option_of_the_optimizer_is_searched(found):
    named = found("clip: none", "sweep: {search: {optimizer.lr: {log: [0.01, 1]}}}")
    assert [param.path for param in named["none"].hyperparameters] == ["lr"]


# The study that points belong to


def test_content_is_of_what_is_fixed_alone(found):
    norm = found()["norm"]
    same = [found("clip: [none, {name: norm, threshold: [1, 2]}]"), found("seeds: [4, 5]"), found("name: other")]
    assert {named["norm"].content for named in same} == {norm.content}
    others = [
        found("clip: [{name: norm, threshold: [1, 1000]}]"),
        found("clip: [{name: norm, threshold: {linear: [0.01, 100]}}]"),
        found("clip: [{name: norm, p: inf, threshold: 1}]"),
        found("optimizer: {name: sgd, lr: 0.2}"),
        found("train: {epochs: 2}"),
        found("data: {name: wine, limit: 61}"),
    ]
    contents = {contender.content for named in others for contender in named.values() if contender.hyperparameters}
    assert len(contents) == len(others)
    assert norm.content not in contents


def test_contenders_cross_processes(plan):
    named = contenders(plan("sweep: {search: {clip.p: [1, 2], optimizer.lr: {log: [0.01, 1]}}}"))
    assert pickle.loads(pickle.dumps(named)) == named


# First points


def test_first_points_are_the_product_of_the_yamls_values(found):
    search = "sweep: {search: {optimizer.lr: {log: [0.01, 1]}}}"
    contender = found("optimizer: {name: sgd, lr: [0.1, 0.5]}", "clip: {name: norm, threshold: [1, 2]}", search)["norm"]
    assert [tuple(point.values()) for point in contender.given()] == [(1.0, 0.1), (1.0, 0.5), (2.0, 0.1), (2.0, 0.5)]


def test_a_hyperparameter_without_a_value_of_its_own_begins_in_the_middle(found):
    search = "sweep: {search: {optimizer.lr: {log: [0.001, 0.01]}}}"
    named = found(search)
    assert named["norm"].given() == ({"threshold": 1.0, "lr": 0.003162},)
    assert named["none"].given() == ()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_many_first_points_are_thinned_evenly_and_stay_distinct(sizes):
    hyperparameters = tuple(
        Hyperparameter(f"clip.option{number}", "", 0.0, 100.0, given=tuple(map(float, range(size))))
        for number, size in enumerate(sizes)
    )
    points = [tuple(point.values()) for point in Contender("x", "", (), {}, hyperparameters).given()]
    assert len(points) == min(math.prod(sizes), MOST_GIVEN) == len(set(points))
    assert points[0] == tuple(0.0 for _ in sizes)
    assert points[-1] == tuple(float(size - 1) for size in sizes) or len(points) == 1


# Values of a hyperparameter

ENDS = st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)).filter(lambda ends: ends[0] < ends[1]).map(sorted)


@given(ENDS, st.floats(0, 1))
def test_a_rounded_value_is_short_within_the_range_and_stays(ends, share):
    low, high = ends
    param = Hyperparameter("threshold", "", low, high)
    value = param.rounded(low + share * (high - low))
    assert low <= value <= high
    assert param.rounded(value) == value
    assert value in ends or value == float(f"{value:.4g}")


@given(st.integers(1, 50), st.integers(51, 500), st.floats(0, 1))
def test_a_whole_hyperparameter_has_whole_values(low, high, share):
    param = Hyperparameter("clip.window", "", float(low), float(high), whole=True)
    value = param.rounded(low + share * (high - low))
    assert type(value) is int
    assert low <= value <= high
    assert param.size == high - low + 1


def test_a_value_that_rounds_as_one_of_the_yamls_is_that_one():
    param = Hyperparameter("threshold", "", 0.001, 0.1, log=True, given=(0.00464159,))
    assert param.rounded(0.00464159) == param.rounded(0.0046421) == 0.00464159
    assert param.rounded(0.0047) == 0.0047


def test_a_choice_stays_what_it_is_though_a_file_made_lists_of_it():
    param = Hyperparameter("optimizer.betas", "", choices=((0.9, 0.999), (0.123456, 0.9)))
    assert param.rounded([0.123456, 0.9]) == (0.123456, 0.9)
    assert Hyperparameter("optimizer.amsgrad", "", choices=(True, False)).rounded(False) is False
