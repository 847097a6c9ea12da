"""From a YAML file to an experiment: what an option may be, what an axis makes, what is kept of the file."""

import math
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from clipbench import config
from clipbench.config.axes import Range
from clipbench.config.resolved_yaml import resolved
from clipbench.core.trial import Component, Training, Trial
from clipbench.errors import InputError, Place
from clipbench.plugins import registry

QUICKSTART = Path(__file__).parents[2] / "experiments" / "quickstart.yaml"
GOOD = """\
data: digits
model: mlp
optimizer: {name: sgd, lr: 0.1}
clip: [none]
seeds: 2
"""


@pytest.fixture
def load(tmp_path):
    """Loads the good experiment with sections replaced: `load("clip: [none]", "seeds: 3")`."""

    def loader(*sections: str, sets=(), seeds=None, name="good.yaml"):
        replaced = {section.split(":")[0] for section in sections}
        kept = [line for line in GOOD.splitlines() if line.split(":")[0] not in replaced]
        path = tmp_path / name
        path.write_text("\n".join([*kept, *sections]) + "\n")
        return config.load(path, sets, seeds)

    return loader


def refused(load, *sections, **options):
    with pytest.raises(InputError) as caught:
        load(*sections, **options)
    return str(caught.value)


def thresholds(experiment):
    return [arm.as_dict().get("threshold") for arm in experiment.arms]


# Arms and their options


def test_quickstart_has_eight_seeds_and_five_rules_or_more():
    experiment = config.load(QUICKSTART)
    assert experiment.seeds == tuple(range(8))
    assert len({arm.name for arm in experiment.arms}) >= 5
    assert experiment.size == len(experiment.arms) * 8
    assert experiment.notes == ()


def test_every_option_is_filled_in_and_its_type_is_the_signatures(load):
    experiment = load("clip: [{name: norm, threshold: 1}]")
    assert experiment.arms[0].as_dict() == {"exclude": (), "p": 2.0, "per": "model", "threshold": 1.0}
    assert all(type(experiment.optimizers[0][name]) is float for name in ("lr", "momentum", "dampening"))
    assert experiment.data[0].as_dict() == {
        "limit": None,
        "rows": False,
        "split.seed": 0,
        "split.test": 0.2,
        "split.val": 0.2,
        "standardize": False,
    }


def test_one_and_one_point_zero_are_the_same_arm(load):
    assert load("clip: [{name: norm, threshold: 1}]").arms == load("clip: [{name: norm, threshold: 1.0}]").arms


def test_label_shows_what_differs_from_the_default_except_the_threshold(load):
    arms = load(
        "clip: [{name: norm, per: model, threshold: 1}, {name: norm, per: tensor, threshold: 1}, "
        "{name: agc, threshold: 1, exclude: [head, 'conv*']}]"
    ).arms
    assert [arm.label for arm in arms] == ["norm", "norm(per=tensor)", "agc(exclude=[head, conv*])"]
    assert arms[1].arm == "norm(per=tensor)@1.0"


@pytest.mark.parametrize("off", ["null", "~", "inf", ".inf", ".Inf"])
def test_threshold_that_is_off_is_none(load, off):
    arm = load(f"clip: [{{name: norm, threshold: {off}}}]").arms[0]
    assert arm["threshold"] is None
    assert arm.arm == "norm@off"


def test_threshold_zero_is_allowed_and_remarked_upon(load):
    experiment = load("clip: [none, {name: norm, threshold: [0, 1]}]")
    assert experiment.notes == ("clip[1].threshold: threshold 0: all gradients become zero.",)


def test_norm_of_infinite_order_is_allowed(load):
    assert load("clip: [{name: norm, threshold: 1, p: inf}]").arms[0]["p"] == math.inf


def test_data_standardized_by_default_say_so(load):
    assert load("data: wine").data[0]["standardize"] is True
    assert load("data: {name: wine, standardize: false}").data[0]["standardize"] is False


@pytest.mark.parametrize("name", registry.catalogue("strategy"))
def test_every_strategy_takes_a_threshold_range(load, name):
    takes = "threshold" in registry.find("strategy", name).options
    entry = f"{{name: {name}, threshold: {{log: [0.1, 1], points: 3}}}}" if takes else name
    assert len(load(f"clip: [{entry}]").arms) == (3 if takes else 1)


@pytest.mark.parametrize("name", registry.catalogue("optimizer"))
def test_every_optimizer_is_accepted_with_a_learning_rate(load, name):
    assert load(f"optimizer: {{name: {name}, lr: 1e-3}}").optimizers[0]["lr"] == 0.001


def test_sections_may_be_a_component_a_name_or_a_list_of_them(load):
    experiment = load("data: [digits, {name: wine}]", "model: [linear, mlp]", "optimizer: [{name: sgd, lr: 0.1}, adam]")
    assert [component.name for component in experiment.data] == ["digits", "wine"]
    assert experiment.size == 2 * 2 * 2 * 2
    assert experiment.keys["model"] == ("model[0]", "model[1]")


# Axes


def test_list_where_one_value_is_expected_is_an_axis(load):
    experiment = load("optimizer: {name: sgd, lr: [0.1, 0.01], momentum: [0, 0.9]}")
    found = [(optimizer["lr"], optimizer["momentum"]) for optimizer in experiment.optimizers]
    assert found == [(0.1, 0.0), (0.1, 0.9), (0.01, 0.0), (0.01, 0.9)]
    assert experiment.keys["optimizer"] == ("optimizer",) * 4


def test_list_of_a_list_option_is_one_value_and_a_list_of_lists_an_axis(load):
    assert [m["hidden"] for m in load("model: {name: mlp, hidden: [8, 4]}").models] == [(8, 4)]
    assert [m["hidden"] for m in load("model: {name: mlp, hidden: [[8], [8, 4]]}").models] == [(8,), (8, 4)]
    arms = load("clip: [{name: norm, threshold: 1, exclude: [[], [head]]}]").arms
    assert [arm["exclude"] for arm in arms] == [(), ("head",)]


def test_log_range_is_geometric_with_exact_ends(load):
    found = thresholds(load("clip: [{name: norm, threshold: {log: [0.001, 0.1], points: 3}}]"))
    assert found == [0.001, 0.01, 0.1]


def test_range_has_five_points_if_it_does_not_say(load):
    assert thresholds(load("clip: [{name: norm, threshold: {linear: [0, 1]}}]")) == [
        0.0,
        0.25,
        0.5,
        0.75,
        1.0,
    ]


def test_ranges_and_values_mix_in_a_list(load):
    found = thresholds(load("clip: [{name: norm, threshold: [null, {log: [1, 100], points: 3}, 500]}]"))
    assert found == [None, 1.0, 10.0, 100.0, 500.0]


def test_range_of_whole_numbers_has_whole_points(load):
    assert [t.epochs for t in load("train: {epochs: {log: [1, 16], points: 5}}").training] == [1, 2, 4, 8, 16]
    assert [t.epochs for t in load("train: {epochs: {linear: [1, 3], points: 9}}").training] == [1, 2, 3]


def test_ranges_stay_known_to_the_sweep(load):
    experiment = load(
        "clip: [none, {name: norm, threshold: {log: [0.1, 10]}}]",
        "optimizer: {name: sgd, lr: {log: [0.01, 1], points: 3}}",
        "train: {epochs: {linear: [1, 3], points: 3}}",
    )
    assert experiment.ranges == {
        "clip[1].threshold": Range(0.1, 10.0, log=True),
        "optimizer.lr": Range(0.01, 1.0, log=True, points=3),
        "train.epochs": Range(1.0, 3.0, log=False, points=3, integer=True),
    }


@pytest.mark.parametrize("points", [1, 2, 3, 7, 100])
def test_points_of_a_range_ascend_between_its_ends(points):
    for low, high, log in [
        (1e-3, 1e3, True),
        (1.0, 1.0000001, True),
        (0.0, 1e-300, False),
        (-5.0, 3.0, False),
    ]:
        values = Range(low, high, log, points).values()
        assert len(values) == points
        assert list(values) == sorted(values) and low <= values[0] and values[-1] <= high


# Training


def test_training_that_says_nothing_is_the_default(load):
    [training] = load().training
    assert training == replace(Training(), loss=training.loss)
    assert training.loss.name == "auto"


def test_steps_stand_instead_of_epochs(load):
    [training] = load("train: {steps: 1e3}").training
    assert (training.epochs, training.steps) == (None, 1000)


def test_full_batch_is_none(load):
    assert [t.batch_size for t in load("train: {batch_size: [32, full]}").training] == [32, None]


def test_loss_may_be_a_name_a_mapping_or_a_list(load):
    experiment = load("data: diabetes", "train: {loss: [mse, {name: huber, delta: [1, 2]}]}")
    found = [(t.loss.name, t.loss.as_dict().get("delta")) for t in experiment.training]
    assert found == [("mse", None), ("huber", 1.0), ("huber", 2.0)]


def test_target_and_metrics_are_read(load):
    [training] = load("train: {target: {val/accuracy: 0.95}, metrics: [accuracy]}").training
    assert training.target == ("val/accuracy", 0.95)
    assert [metric.name for metric in training.metrics] == ["accuracy"]


def test_schedule_may_be_a_name_a_mapping_or_an_axis_of_them(load):
    experiment = load("train: {schedule: [null, cosine, {name: linear, final: [0.1, 0.2], warmup: 5}]}")
    found = [t.schedule and (t.schedule.name, t.schedule["final"], t.schedule["warmup"]) for t in experiment.training]
    assert found == [None, ("cosine", 0.0, 0), ("linear", 0.1, 5), ("linear", 0.2, 5)]


def test_early_stop_may_be_its_patience_alone(load):
    stops = [
        t.early_stop for t in load("train: {early_stop: [null, 3, {measure: val/accuracy, patience: 2}]}").training
    ]
    assert [stop and (stop.name, stop["patience"], stop["min_delta"]) for stop in stops] == [
        None,
        ("val/loss", 3, 0.0),
        ("val/accuracy", 2, 0.0),
    ]


def test_epoch_steps_are_for_what_has_no_epochs(load, tmp_path):
    (tmp_path / "mine.py").write_text("def bowl(): ...\ndef stream(generator): ...\n")
    bowl = load("data: none", "model: ./mine.py:bowl", "train: {loss: output, epoch_steps: 5}")
    stream = load("data: ./mine.py:stream", "train: {epoch_steps: [5, 10]}")
    assert [t.epoch_steps for t in (*bowl.training, *stream.training)] == [5, 5, 10]


def test_objective_without_data_is_its_own_loss(load, tmp_path):
    (tmp_path / "mine.py").write_text("def bowl(dim: int = 2):\n    return None\n")
    experiment = load("data: none", "model: ./mine.py:bowl", "train: {loss: output, steps: 5}")
    assert experiment.data == (None,)
    assert experiment.training[0].loss.name == "output"


# Numbers and words


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.001", ".001", "+1.0e-3", "1_0e-4"])
def test_numbers_are_read_as_people_write_them(load, text):
    assert load(f"optimizer: {{name: sgd, lr: {text}}}").optimizers[0]["lr"] == 0.001


@pytest.mark.parametrize("name", ["no", "on", "yes", "2020-01-01", "0b1"])
def test_words_that_yaml_1_1_would_change_stay_words(load, name):
    assert load(f"name: {name}").name == name


def test_name_is_the_files_if_it_says_none(load):
    assert load(name="my first try.yaml").name == "my-first-try"


# The user's own functions


def test_own_function_beside_the_yaml_is_found_and_its_source_is_kept(load, tmp_path):
    (tmp_path / "mine.py").write_text("def net(inputs, outputs, width=1.5, *, kind=None, act=print): ...\n")
    [model] = load("model: {name: './mine.py:net', width: 2, kind: x}").models
    assert model.as_dict() == {"kind": "x", "width": 2.0}
    assert model.source and model.folder == str(tmp_path)
    assert model.label == "./mine.py:net(width=2.0, kind=x)"


def test_required_options_of_an_own_function_are_named(load, tmp_path):
    (tmp_path / "mine.py").write_text("def net(inputs, width, depth: int): ...\n")
    assert "net needs `width` and `depth`." in refused(load, "model: ./mine.py:net")


def test_own_function_with_any_options_takes_any(load, tmp_path):
    (tmp_path / "mine.py").write_text("def net(**options): ...\n")
    [first, second] = load("model: {name: './mine.py:net', a: [1, x]}").models
    assert (first["a"], second["a"]) == (1, "x")


def test_own_default_may_be_written_out_whatever_its_annotation(load, tmp_path):
    (tmp_path / "mine.py").write_text("def net(width: int = None): ...\n")
    assert load("model: {name: './mine.py:net', width: null}").models[0]["width"] is None


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def net(:", "SyntaxError"),
        ("raise SystemExit(3)", "it exits the program"),
        ("net = 3", "has no function 'net'"),
        ("def nte(): ...", "Did you mean `nte`?"),
        ("import sys; sys.exit()", "it exits the program"),
    ],
)
def test_own_file_that_cannot_be_imported_is_a_placed_mistake(load, tmp_path, code, said):
    (tmp_path / "mine.py").write_text(code + "\n")
    text = refused(load, "model: ./mine.py:net")
    assert said in text and "good.yaml:5:8: model:" in text


@pytest.mark.parametrize("name", [r"./\0.py:net", "./" + "x" * 5000 + ".py:net", "os:", ":", "./.py:", "math:hypot"])
def test_name_that_no_function_can_have_is_a_placed_mistake(load, name):
    assert "good.yaml:5:8: model:" in refused(load, f'model: "{name}"')


def test_own_limits_are_held_and_said(load, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from typing import Annotated\nfrom annotated_types import Gt\n"
        "def net(width: Annotated[float, Gt(0)], sizes: Annotated[list[int] | None, 'any'] = None): ...\n"
    )
    assert "width: must be greater than 0, got -1." in refused(load, "model: {name: './mine.py:net', width: -1}")
    assert len(load("model: {name: './mine.py:net', width: 1, sizes: [1, 2]}").models) == 1


def test_own_strategy_must_say_where_it_looks(load, tmp_path):
    (tmp_path / "mine.py").write_text("def rule(n, threshold): ...\n")
    said = refused(load, "clip: [{name: './mine.py:rule', threshold: 1}]")
    assert "Decorate it with @clipbench.strategy(per=...)." in said


def test_own_strategy_is_taken_as_the_built_in_ones_are(load, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import clipbench\n@clipbench.strategy(per='unit')\ndef rule(n, threshold, slack: float = 0): ...\n"
    )
    [arm] = load("clip: [{name: './mine.py:rule', threshold: 1}]").arms
    assert arm.as_dict() == {"exclude": (), "per": "unit", "slack": 0.0, "threshold": 1.0}


def test_own_optimizer_that_refuses_is_a_placed_mistake(load, tmp_path):
    (tmp_path / "mine.py").write_text("def best(params, lr, beta=1.0):\n    raise KeyError('beta')\n")
    assert "good.yaml:5:50: optimizer.beta" in refused(load, "optimizer: {name: './mine.py:best', lr: 1, beta: 3}")
    (tmp_path / "other.py").write_text("def best(params, lr):\n    return 3\n")
    assert "returned int, not a torch.optim.Optimizer" in refused(load, "optimizer: {name: './other.py:best', lr: 1}")


# Report, seeds


def test_baseline_is_none_where_there_is_one(load):
    assert load().report.baseline == "none"


def test_experiment_without_baseline_says_so(load):
    experiment = load("clip: [{name: norm, threshold: 1}]")
    assert experiment.report.baseline is None
    assert "not compared with a baseline" in experiment.notes[0]


@pytest.mark.parametrize("baseline", ["norm", "norm(per=tensor)", "norm@1.0"])
def test_baseline_is_a_strategy_or_an_arm(load, baseline):
    arms = "clip: [{name: norm, threshold: 1}, {name: norm, per: tensor, threshold: 1}]"
    assert load(arms, f"report: {{baseline: '{baseline}'}}").report.baseline == baseline


def test_seeds_of_the_command_line_count(load):
    assert load(seeds=5).seeds == (0, 1, 2, 3, 4)
    assert load("seeds: [7, 3]").seeds == (7, 3)


def test_sweep_and_claims_are_kept(load):
    experiment = load(
        "sweep: {trials: 5, timeout: 10m, search: {optimizer.lr: {log: [0.01, 1]}}}",
        "claims: [{says: clipping helps, expect: norm > none}]",
    )
    assert experiment.sweep.timeout == 600
    assert experiment.sweep.search["optimizer.lr"] == Range(0.01, 1.0, log=True)
    assert experiment.claims[0].margin is None


def test_sweep_is_of_its_defaults_where_nothing_is_said(load):
    sweep = load("sweep: {}").sweep
    assert (sweep.trials, sweep.seeds, sweep.batch, sweep.confirm_seeds) == (40, 3, 8, 8)
    assert (sweep.sampler, sweep.pruner, sweep.objective, sweep.direction) == ("tpe", None, None, None)
    assert sweep.search == {}


def test_one_objective_in_a_list_is_that_objective(load):
    sweep = load("sweep: {objective: [val/loss], direction: [minimize]}").sweep
    assert (sweep.objective, sweep.direction) == ("val/loss", "minimize")


@pytest.mark.parametrize("pruner", ["wilcoxon", "none"])
def test_measures_of_the_end_are_objectives_without_a_pruner_of_epochs(load, pruner):
    sweep = load(f"sweep: {{objective: best_val/accuracy, pruner: {pruner}, seeds: 5}}").sweep
    assert (sweep.objective, sweep.pruner) == ("best_val/accuracy", pruner)


def test_wilcoxon_on_few_pairs_is_remarked_upon(load):
    assert "with 4 pairs" in load("sweep: {pruner: wilcoxon, seeds: 4}").notes[0]
    said = ("sweep.pruner: wilcoxon cannot prune with 3 pairs of trials. Write sweep.seeds: 5 or more.",)
    assert load("sweep: {pruner: wilcoxon}").notes == said
    assert load("sweep: {pruner: wilcoxon, seeds: 5}").notes == ()
    assert load("sweep: {pruner: wilcoxon, seeds: 1}", "data: {name: wine, folds: 5}").notes == ()


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_pruners_of_epochs_on_folds_are_remarked_upon(load, pruner):
    (said,) = load(f"sweep: {{pruner: {pruner}}}", "data: {name: wine, folds: 5}").notes
    assert said.startswith(f"sweep.pruner: {pruner} cannot prune with folds")
    assert load(f"sweep: {{pruner: {pruner}}}", "data: {name: wine, folds: 5, fold: 0}").notes == ()


def test_metrics_of_the_users_own_are_objectives(load, tmp_path):
    (tmp_path / "own.py").write_text("def share(output, target):\n    return (output > 0).float().mean()\n")
    sweep = load("train: {metrics: [./own.py:share]}", "sweep: {objective: val/share}").sweep
    assert sweep.objective == "val/share"


def test_whole_and_listed_options_are_searched(load):
    search = load(
        "clip: [none, {name: autoclip, threshold: 10}]",
        "optimizer: [{name: adam, lr: 0.01}, {name: sgd, lr: 0.1}]",
        "sweep: {search: {clip.window: {log: [10, 1000]}, 'optimizer[0].betas': [[0.9, 0.99], [0.5, 0.9]], "
        "optimizer.amsgrad: [true, false]}}",
    ).sweep.search
    assert search == {
        "clip.window": Range(10.0, 1000.0, log=True),
        "optimizer[0].betas": ((0.9, 0.99), (0.5, 0.9)),
        "optimizer.amsgrad": (True, False),
    }


def test_the_time_of_a_step_is_no_part_of_a_trial(load):
    def trial(train):
        return Trial(None, Component("mlp"), Component("sgd"), train, Component("none"), 0)

    known = load().training[0]
    changed = load("train: {timeout_per_step: 30s}").training[0]
    assert changed.timeout_per_step == 30 and changed == known
    assert trial(changed).columns() == trial(known).columns()
    assert trial(changed).id == trial(known).id
    said = refused(load, "train: {timeout_per_step: [10, 20]}")
    assert "train.timeout_per_step: expected one value, got a list. Write one of its values." in said
    assert "expected a duration greater than 0, got null" in refused(load, "train: {timeout_per_step: null}")


# --set


def test_set_replaces_adds_and_reaches_into_lists(load):
    experiment = load(
        "clip: [none, {name: norm, threshold: 1}]",
        sets=[
            "clip[1].threshold=[2, 3]",
            "clip.1.p=inf",
            "train.epochs=3",
            "model.hidden=[4]",
            "data.limit=9",
        ],
    )
    assert thresholds(experiment) == [None, 2.0, 3.0]
    assert experiment.training[0].epochs == 3
    assert experiment.models[0]["hidden"] == (4,)
    assert experiment.data[0]["limit"] == 9


def test_set_takes_any_yaml(load):
    assert len(load(sets=["clip=\n- none\n- {name: norm, threshold: 1}\n"]).arms) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train.epochs=x", "--set train.epochs=x: train.epochs: expected an integer, got 'x'."),
        ("train.epochs", "--set train.epochs: is not path.to.key=value. Write for example train.epochs=5."),
        ("clip[3].threshold=1", "--set clip[3].threshold=1: clip has 1 entries, counted from 0."),
        ("clip.threshold=1", "is a list, so it has no 'threshold'. Say which one: clip[0].threshold."),
        ("seeds.x=1", "--set seeds.x=1: seeds is a single value, so it has no 'x'."),
        ("model.hidden=[", "--set model.hidden=[: model.hidden: invalid YAML: "),
        (
            'sweep.search."optimizer.lr"=3',
            '--set sweep.search."optimizer.lr"=3: sweep.search."optimizer.lr": expected a range or a list of values',
        ),
        ("trian.epochs=1", "trian: unknown section 'trian'. Did you mean `train`?"),
    ],
)
def test_mistake_of_set_is_placed_at_its_words(load, words, said):
    assert said in refused(load, sets=[words])


def test_every_mistake_of_every_set_is_said_at_once(load):
    said = refused(load, "model: mpl", sets=["data=[", "clip[7]=x", "nothing", "train.epochs=x"])
    assert len(said.splitlines()) == 5


# What is kept


def test_place_leads_back_to_the_line(load):
    experiment = load("clip: [none, {name: norm, threshold: [1, 2], exclude: [head]}]")
    assert experiment.keys["clip"] == ("clip[0]", "clip[1]", "clip[1]")
    assert experiment.place("clip[1].exclude") == Place(experiment.path, 5, 55, "clip[1].exclude")
    assert experiment.place("clip[1].per") == Place(experiment.path, 5, 14, "clip[1].per")
    assert experiment.place("train.loss").file == experiment.path


def test_experiment_crosses_processes():
    experiment = config.load(QUICKSTART, ["sweep={trials: 3, search: {optimizer.lr: {log: [0.1, 1]}}}"])
    assert pickle.loads(pickle.dumps(experiment)) == experiment


EVERYTHING = [
    "name: 1e-3",
    "data: {name: digits, limit: [50, 100], split: {val: 0.1, seed: 3}}",
    "model: [{name: mlp, hidden: [[8], [8, 4]]}, linear]",
    "optimizer: [{name: adam, betas: [0.5, 0.9], lr: {log: [0.001, 0.1], points: 3}, "
    "groups: [[{match: ['*.bias', '1'], betas: [0.1, 0.2], lr: 1}, {match: head}], [{match: ['*'], eps: 1e-3}]]}, "
    "{name: sgd, lr: 1, groups: [{match: ['1e-3'], momentum: 0.9}]}]",
    "train: {steps: 10, batch_size: [full, 7], loss: {name: huber, delta: 2}, "
    "target: {val/loss: 0.1}, schedule: [null, linear, {name: step, every: 3, warmup: 2}], "
    "noise: [null, {name: weibull, shape: [0.2, 0.5]}], l1: [0, 0.1], "
    "early_stop: [null, 3, {measure: train/loss, patience: 2, min_delta: 0.1}]}",
    "clip: [none, {name: norm, p: inf, threshold: [null, 1]}, {name: agc, threshold: 1, exclude: ['1e-3']}, "
    "{name: value, threshold: [1, 2], groups: [{'1': 0.5, '*': null}, [1, null, 0.5, 2, 3, 4]]}, "
    "{name: norm, threshold: 1, groups: [{match: [a, '*.b'], threshold: 3}, {match: c, threshold: .inf}]}, "
    "{name: norm, threshold: 2, scope: sample, noise: 1, adapt: {quantile: 0.5, noise: 5}}, "
    "{name: skip, threshold: 3, scope: sample, adapt: [0.5, null, {quantile: 0.25, lr: 1, max: 10}]}]",
    "seeds: [3, 1]",
    "report: {margin: 1, baseline: agc, tuned: true}",
    "sweep: {timeout: 90, search: {optimizer.lr: {linear: [0.1, 1]}, "
    "'optimizer[0].betas': [[0.5, 0.9], [0.9, 0.99]], clip.p: [1, 2, inf]}, objective: [val/loss, epochs_to_target], "
    "direction: [minimize, minimize]}",
    "claims: [{says: 'yes: it does', expect: none > norm, metric: test/loss}]",
]


def test_resolved_experiment_loads_to_the_same_trials(load, tmp_path):
    experiment = load(*[section.replace("name: 1e-3", "name: '1e-3'") for section in EVERYTHING])
    path = tmp_path / "elsewhere" / "resolved.yaml"
    path.parent.mkdir()
    path.write_text(resolved(experiment), encoding="utf-8")
    again = config.load(path)
    for part in (
        "name",
        "data",
        "models",
        "optimizers",
        "training",
        "arms",
        "seeds",
        "report",
        "sweep",
        "claims",
    ):
        assert getattr(again, part) == getattr(experiment, part), part
    assert again.ranges == experiment.ranges
    assert resolved(again) == resolved(experiment)


def test_resolved_experiment_finds_the_users_own_functions(load, tmp_path):
    (tmp_path / "mine.py").write_text("def net(width, sizes=None): ...\n")
    experiment = load("model: {name: './mine.py:net', width: 2, sizes: [[1, 2]]}")
    path = tmp_path / "results" / "resolved.yaml"
    path.parent.mkdir()
    path.write_text(resolved(experiment), encoding="utf-8")
    assert config.load(path).models == experiment.models
    assert config.load(path).models[0].folder == str(tmp_path)


def test_resolved_experiment_finds_own_functions_of_training(load, tmp_path):
    (tmp_path / "mine.py").write_text("def slow(step, steps): ...\n")
    path = tmp_path / "results" / "resolved.yaml"
    experiment = load("train: {schedule: './mine.py:slow'}")
    path.parent.mkdir()
    path.write_text(resolved(experiment), encoding="utf-8")
    assert config.load(path).training == experiment.training


def test_too_many_trials_are_refused_before_they_are_made(load):
    axes = ", ".join(f"{name}: {{log: [1e-9, 0.1], points: 1000}}" for name in ("lr", "momentum", "weight_decay"))
    assert "1,000,000,000 combinations, more than 10,000." in refused(load, f"optimizer: {{name: sgd, {axes}}}")


def test_an_end_of_value_takes_the_place_of_its_threshold(load):
    clip = "clip: [{name: value, lower: -0.1, upper: [0.2, 0.5]}, {name: value, threshold: 1.0, lower: -0.5}, sign]"
    arms = [arm.arm for arm in load(clip).arms]
    assert arms == [
        "value(lower=-0.1, upper=0.2)",
        "value(lower=-0.1, upper=0.5)",
        "value(lower=-0.5)@1.0",
        "sign",
    ]


@pytest.mark.parametrize("options", ["", ", lower: 0.1", ", upper: -0.1", ", exclude: [head]"])
def test_value_without_an_end_that_makes_sense_is_refused(load, options):
    with pytest.raises(InputError):
        load(f"clip: [{{name: value{options}}}]")
