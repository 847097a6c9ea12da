"""What users bring: data, models, losses, metrics, optimizers and rules of their own, from files beside their YAML."""

from __future__ import annotations

import os
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from clipbench import datasets, engine
from clipbench.config import load
from clipbench.core.records import Records
from clipbench.core.trial import Component, Training, Trial
from clipbench.errors import UnknownName, Unsupported
from clipbench.planning.build import prepare
from clipbench.plugins import registry

C = Component.of
SGD = C("sgd", lr=0.05)
NONE = C("none")
PARTS = {"split.val": 0.2, "split.test": 0.2, "split.seed": 0}
LINEAR = C("linear", bias=True)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a user's own work, with spaces"
    folder.mkdir()
    return folder


def write(folder: Path, text: str, file: str = "own.py") -> None:
    (folder / file).write_text(textwrap.dedent(text))


def own(kind: str, name: str, folder: Path, **options: object) -> Component:
    """A component as the reader of the YAML makes it."""
    plugin = registry.find(kind, name, folder)
    return C(name, source=plugin.source, folder=str(folder), **options)


def training(loss: Component | str = "mse", **changes: object) -> Training:
    loss = C(loss) if isinstance(loss, str) else loss
    options = {"steps": 15, "batch_size": 8, "dtype": "float64", "save_weights": True, **changes}
    return Training(epochs=None, loss=loss, **options)


def train_one(data: Component | None = None, **parts: object) -> tuple[Records, Trial]:
    defaults = {"model": LINEAR, "optimizer": SGD, "train": training(), "clip": NONE, "seed": 0}
    trial = Trial(data=data or C("tests.toys:line", examples=30), **{**defaults, **parts})
    return engine.train([trial]), trial


def value(records: Records, name: str) -> float:
    return float(records.records[name][0])


def losses(records: Records, trial: Trial) -> np.ndarray:
    return records.steps["train/loss"][records.steps["id"] == trial.id]


# Data

KINDS_OF_DATA = """
    import numpy as np
    import torch

    draw = np.random.default_rng(0)
    x = draw.standard_normal((30, 3))
    y = x @ [1.0, 2.0, 3.0]

    def a_pair(): return x, y
    def a_list(): return [x.tolist(), y.tolist()]
    def tensors(): return torch.tensor(x), torch.tensor(y)
    def tracked(): return torch.tensor(x, requires_grad=True), torch.tensor(y)
    def a_column(): return x, y[:, None]
    def single(): return x.astype(np.float32), y.astype(np.float32)
    def two_targets(): return x, np.stack([y, -y], axis=1)
    def only_train(): return {"train": (x, y)}
    def without_val(): return {"train": (x, y), "test": (x[:5], y[:5]), "val": None}
    def all_parts(): return {"train": (x, y), "val": (x[:5], y[:5]), "test": (x[5:9], y[5:9])}
    def classes(): return x, (y > 0).astype(np.int32)
    def yes_or_no(): return x, y > 0
    def unsigned(): return x, (y > 0).astype(np.uint8)
    def with_options(examples: int = 5, scale: float = 1.0): return scale * x[:examples], y[:examples]
    def read_only():
        frozen = x.copy(); frozen.flags.writeable = False
        return frozen, y
    def strided(): return np.asfortranarray(x)[::1], y[::-1][::-1]
"""
REAL = ("a_pair", "a_list", "tensors", "tracked", "a_column", "single", "two_targets", "read_only", "strided")


@pytest.mark.parametrize("name", REAL)
def test_own_data_with_real_targets_are_learnt(folder, name):
    write(folder, KINDS_OF_DATA)
    train = training(metrics=(C("r2"),), steps=200)
    records, _ = train_one(own("data", f"./own.py:{name}", folder, **PARTS), train=train)
    assert value(records, "test/r2") > 0.95
    assert value(records, "parameters") == (8 if name == "two_targets" else 4)


@pytest.mark.parametrize("name", ["classes", "yes_or_no", "unsigned"])
def test_own_data_with_classes_are_learnt(folder, name):
    write(folder, KINDS_OF_DATA)
    train = training("cross_entropy", metrics=(C("accuracy"),), steps=300)
    records, _ = train_one(own("data", f"./own.py:{name}", folder, **PARTS), train=train)
    assert value(records, "train/accuracy") > 0.9
    assert value(records, "parameters") == 8


@pytest.mark.parametrize(
    "name, parts", [("only_train", ()), ("without_val", ("test",)), ("all_parts", ("val", "test"))]
)
def test_own_data_may_come_in_parts_of_which_some_are_missing(folder, name, parts):
    write(folder, KINDS_OF_DATA)
    records, _ = train_one(own("data", f"./own.py:{name}", folder))
    assert len(datasets.load(own("data", f"./own.py:{name}", folder)).train[0]) == 30
    for part in ("val", "test"):
        assert (f"{part}/loss" in records.records) == (part in parts)
    assert ("generalization_gap" in records.records) == ("test" in parts)
    assert value(records, "train/loss") < 30


def test_own_data_take_options_and_are_untouched(folder):
    write(folder, KINDS_OF_DATA)
    loaded = datasets.load(own("data", "./own.py:with_options", folder, examples=10, scale=100.0, **PARTS))
    assert len(loaded.train[0]) == 6 and len(loaded.test[0]) == 2
    assert np.abs(loaded.train[0]).max() > 10


# Models


def test_own_models_are_given_the_sizes_that_they_ask_for(folder):
    write(
        folder,
        """
        import torch
        from torch import nn

        def both(inputs, outputs, width: int = 4):
            return nn.Sequential(nn.Linear(inputs, width), nn.Linear(width, outputs))

        def one(outputs):
            return nn.Linear(3, outputs)

        def neither():
            return nn.Linear(3, 1)

        class Net(nn.Module):
            def __init__(self, inputs: int, bias: bool = False):
                super().__init__()
                self.layer = nn.Linear(inputs, 1, bias=bias)

            def forward(self, x):
                return self.layer(x)
        """,
    )
    for name, options, parameters in (
        ("both", {"width": 5}, 26),
        ("one", {}, 4),
        ("neither", {}, 4),
        ("Net", {"bias": False}, 3),
    ):
        records, _ = train_one(model=own("model", f"./own.py:{name}", folder, **options))
        assert value(records, "parameters") == parameters, name
        assert list(records.records["status"]) == ["finished"]


def test_an_own_model_starts_from_the_seed_alone(folder):
    write(
        folder,
        """
        import torch
        def net(inputs, outputs): return torch.nn.Linear(inputs, outputs)
        """,
    )
    torch.manual_seed(5)
    starts = []
    for seed in (7, 7, 8):
        records, trial = train_one(model=own("model", "./own.py:net", folder), optimizer=C("sgd", lr=0.0), seed=seed)
        starts.append(records.weights[trial.id])
    torch.manual_seed(7)
    layer = torch.nn.Linear(3, 1)
    expected = np.concatenate([layer.weight.detach().numpy().ravel(), layer.bias.detach().numpy()])
    np.testing.assert_array_equal(starts[0], expected)
    np.testing.assert_array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[2])


# Losses and metrics


def test_own_losses_and_metrics_take_options_and_keep_their_names(folder):
    write(
        folder,
        """
        import clipbench

        def scaled(output, target, by: float = 1.0):
            return by * ((output - target) ** 2).mean()

        def bias(output, target):
            return (output - target).mean()

        @clipbench.metric(higher_is_better=False)
        def worst(output, target, power: int = 1):
            return (output - target).abs().max() ** power
        """,
    )
    metrics = (own("metric", "./own.py:bias", folder), own("metric", "./own.py:worst", folder, power=2))
    halves = training(own("loss", "./own.py:scaled", folder, by=0.5), metrics=metrics)
    records, trial = train_one(optimizer=C("sgd", lr=0.1), train=halves)
    usual, same = train_one(optimizer=C("sgd", lr=0.05))
    np.testing.assert_allclose(records.weights[trial.id], usual.weights[same.id], rtol=1e-12)
    assert value(records, "test/loss") == pytest.approx(value(usual, "test/loss") / 2)
    assert value(records, "test/worst") >= value(records, "test/bias") ** 2
    curve = records.epochs["val/worst"]
    assert value(records, "best_val/worst") == min(curve)  # declared: lower is better
    assert value(records, "best_val/bias") == max(records.epochs["val/bias"])  # a score, where nobody says


def test_direction_that_an_own_metric_does_not_declare_is_said(tmp_path):
    write(
        tmp_path,
        """
        import clipbench

        def errors(output, target):
            return (output.argmax(1) != target).float().mean()

        @clipbench.metric(higher_is_better=False)
        def cost(output, target):
            return errors(output, target)
        """,
    )
    (tmp_path / "study.yaml").write_text(
        "data: digits\nmodel: mlp\noptimizer: {name: sgd, lr: 0.1}\nclip: [none, {name: norm, threshold: 1.0}]\n"
        "train: {epochs: 1, metrics: [accuracy, ./own.py:errors, ./own.py:cost]}\nseeds: 2\n"
    )
    said = [note for note in prepare(str(tmp_path / "study.yaml")).notes if "is taken for better" in note]
    assert said == ["a higher ./own.py:errors is taken for better. Declare it with @metric(higher_is_better=...)."]


# Optimizers


def test_an_own_optimizer_trains_every_lane_alone(folder):
    """It looks at whole tensors, of the shapes that the model gave them, so lanes must not be stacked for it."""
    write(
        folder,
        """
        import torch

        class Unit(torch.optim.Optimizer):
            def __init__(self, params, lr, power: float = 1.0):
                super().__init__(params, {"lr": lr, "power": power})

            @torch.no_grad()
            def step(self, closure=None):
                for group in self.param_groups:
                    for p in group["params"]:
                        assert p.shape in ((1, 3), (1,))
                        self.state[p]["steps"] = self.state[p].get("steps", 0) + 1
                        p -= group["lr"] / self.state[p]["steps"] * p.grad / p.grad.norm() ** group["power"]

        def plain(params, lr, momentum: float = 0.0):
            return torch.optim.SGD(params, lr=lr, momentum=momentum)
        """,
    )
    data = C("tests.toys:line", examples=30)
    unit = own("optimizer", "./own.py:Unit", folder, lr=0.1, power=1.0)
    clips = [NONE, C("norm", threshold=0.1, p=2.0, per="model", exclude=()), C("skip", threshold=6.0, exclude=())]
    trials = [Trial(data, LINEAR, unit, training(), clip, seed) for clip in clips for seed in (0, 1)]
    together = engine.train(trials)
    for trial in trials:
        np.testing.assert_array_equal(together.weights[trial.id], engine.train([trial]).weights[trial.id])
    # Dividing by the norm takes clipping away, but for the last digits and torch's 1e-6.
    np.testing.assert_allclose(together.weights[trials[0].id], together.weights[trials[2].id], rtol=1e-6)

    mine, trial = train_one(optimizer=own("optimizer", "./own.py:plain", folder, lr=0.05, momentum=0.9))
    torchs, other = train_one(optimizer=C("sgd", lr=0.05, momentum=0.9))
    np.testing.assert_allclose(mine.weights[trial.id], torchs.weights[other.id], rtol=1e-12)


def test_an_invalid_optimizer_is_refused_with_a_message(folder):
    write(folder, "def nothing(params, lr): return None\n")
    with pytest.raises(Unsupported, match=r"it returned NoneType, not a torch.optim.Optimizer"):
        train_one(optimizer=own("optimizer", "./own.py:nothing", folder, lr=0.1))


# Rules

OWN_RULES = """
    import torch
    import clipbench
    from clipbench import strategy

    @strategy(per="model", search=(0.1, 1.0), loose=float("inf"))
    def my_norm(n, threshold):
        return torch.where(n > threshold, threshold / (n + 1e-6), 1.0), n > threshold

    @clipbench.strategy(per="tensor")
    def my_tensor_norm(n, threshold):
        return (threshold / (n + 1e-6)).clamp(max=1), n > threshold

    @strategy(per="unit")
    def my_agc(n, w, threshold, floor: float = 1e-3):
        limit = threshold * w.clamp(min=floor)
        return (limit / n.clamp(min=1e-6)).clamp(max=1), n > limit

    @strategy(per="element")
    def my_value(g, threshold):
        return g.clamp(-threshold, threshold)

    @strategy(per="element")
    def my_relative(g, model_m, threshold):
        return torch.minimum(torch.maximum(g, -threshold * model_m), threshold * model_m)

    @strategy(per="step", refuses=True)
    def my_skip(n, threshold):
        return n <= threshold

    @strategy(per="step")
    def my_calm(m, model_m, model_n, w, threshold):
        return (m <= threshold) & (model_m <= threshold) & (w > 0)

    @strategy(per="model")
    def my_drop(n, m, model_n, model_m, w, threshold):
        keep = (n <= threshold) & (model_n <= threshold) & (m <= model_m)
        return torch.where(keep, 1.0, 0.0), ~keep

    @strategy(per="model")
    def backwards(n):
        return -torch.ones_like(n), torch.ones_like(n, dtype=torch.bool)

    @strategy(per="element")
    def by_weight(g, n, m, w, threshold):
        limit = threshold * w
        return torch.where((n <= limit) & (m <= limit), g, limit * g.sign())

    @strategy(per="element")
    def in_place(g, threshold):
        return g.clamp_(-threshold, threshold)

    @strategy(per="model")
    def forgets_fired(n, threshold):
        return (threshold / n).clamp(max=1)

    @strategy(per="tensor")
    def without_options(n, m, model_n):
        return 1 / (1 + n), torch.ones_like(n, dtype=torch.bool)
"""
TWINS = {
    "my_norm": (C("norm", threshold=0.5, p=2.0, per="model", exclude=()), {"threshold": 0.5, "per": "model"}),
    "my_tensor_norm": (C("norm", threshold=0.5, p=2.0, per="tensor", exclude=()), {"threshold": 0.5, "per": "tensor"}),
    "my_agc": (C("agc", threshold=0.1, eps=1e-3, per="unit", exclude=()), {"threshold": 0.1, "per": "unit"}),
    "my_value": (C("value", threshold=0.3, exclude=()), {"threshold": 0.3}),
    "in_place": (C("value", threshold=0.3, exclude=()), {"threshold": 0.3}),
    "my_relative": (C("relative", threshold=0.3, exclude=()), {"threshold": 0.3}),
    "my_skip": (C("skip", threshold=6.0, exclude=()), {"threshold": 6.0}),
    "my_drop": (C("drop", threshold=6.0, exclude=()), {"threshold": 6.0, "per": "model"}),
}
MEASURED = ("train/loss", "grad_norm/pre", "grad_norm/post", "clip/fired", "clip/fraction", "clip/cosine")


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # in place, without compiled kernels
@pytest.mark.parametrize("exclude", [(), ("body",)], ids=["whole", "without body"])
@pytest.mark.parametrize("name", TWINS)
def test_an_own_rule_is_carried_out_as_the_built_in_one(folder, name, exclude):
    write(folder, OWN_RULES)
    built_in, options = TWINS[name]
    built_in = C(built_in.name, **{**built_in.as_dict(), "exclude": exclude})
    mine = own("strategy", f"./own.py:{name}", folder, exclude=exclude, **options)
    model = C("tests.toys:plain")
    records, trial = train_one(model=model, clip=mine)
    theirs, twin = train_one(model=model, clip=built_in)
    np.testing.assert_allclose(records.weights[trial.id], theirs.weights[twin.id], rtol=1e-6)
    for column in MEASURED:
        np.testing.assert_allclose(records.steps[column], theirs.steps[column], rtol=1e-5, atol=1e-9, err_msg=column)
    fired = records.steps["clip/fired"]
    assert fired.any(), "a threshold that shows something"


def test_an_own_rule_may_turn_a_gradient_around_or_take_no_options(folder):
    write(folder, OWN_RULES)
    records, trial = train_one(clip=own("strategy", "./own.py:backwards", folder, per="model", exclude=()))
    assert (np.diff(losses(records, trial)) > 0).mean() > 0.5
    assert set(records.steps["clip/cosine"]) == {-1.0}
    np.testing.assert_array_equal(records.steps["grad_norm/post"], records.steps["grad_norm/pre"])
    records, trial = train_one(clip=own("strategy", "./own.py:without_options", folder, per="tensor", exclude=()))
    assert (records.steps["grad_norm/post"] < 2**0.5).all()
    assert trial.arm == "./own.py:without_options"


@pytest.mark.parametrize("name, steps", [("my_calm", 0), ("by_weight", 15)])
def test_an_own_rule_gets_every_statistic_that_it_names_at_its_own_place(folder, name, steps):
    write(folder, OWN_RULES)
    records, trial = train_one(clip=own("strategy", f"./own.py:{name}", folder, threshold=1e-3, exclude=()))
    assert list(records.records["status"]) == ["finished"]
    moved = np.diff(losses(records, trial)).any()
    assert records.steps["clip/fired"].all()
    assert moved or name == "my_calm" or not steps


@pytest.mark.parametrize("per", ["model", "tensor"])
def test_a_rule_that_does_not_return_where_it_fired_is_refused_with_a_message(folder, per):
    """Of two lanes, one tensor would unpack into two."""
    write(folder, OWN_RULES)
    clip = own("strategy", "./own.py:forgets_fired", folder, per=per, threshold=1.0, exclude=())
    with pytest.raises(TypeError, match=r"forgets_fired must return \(coefficient, fired\), got Tensor"):
        train_one(clip=clip)


def test_own_rules_of_a_name_in_two_files_do_not_meet(folder):
    write(folder, OWN_RULES)
    write(
        folder,
        OWN_RULES.replace("g.clamp(-threshold, threshold)", "g.clamp(-2 * threshold, 2 * threshold)"),
        "other.py",
    )
    data = C("tests.toys:line", examples=30)
    arms = [own("strategy", f"./{file}:my_value", folder, threshold=0.3, exclude=()) for file in ("own.py", "other.py")]
    arms.append(C("value", threshold=0.6, exclude=()))
    trials = [Trial(data, LINEAR, SGD, training(), arm, 0) for arm in arms]
    records = engine.train(trials)
    one, two, doubled = (records.weights[trial.id] for trial in trials)
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(two, doubled)


# Files


def test_two_experiments_files_of_one_name_do_not_meet(tmp_path):
    found = []
    for number in (1, 2):
        folder = tmp_path / f"experiment {number}"
        folder.mkdir()
        write(
            folder,
            f"import torch\ndef net(inputs, outputs): return torch.nn.Linear({number} * 3, outputs)\n",
            "model.py",
        )
        found.append(registry.find("model", "./model.py:net", folder))
    assert [plugin.function(3, 1).in_features for plugin in found] == [3, 6]
    assert found[0].source != found[1].source


EXPERIMENT = """
    name: own
    data: ./own.py:data
    model: ./model.py:net
    optimizer: {name: sgd, lr: 0.1}
    train: {epochs: 1}
    clip: [none, {name: "./own.py:rule", threshold: 1.0}]
    seeds: 2
"""
OWN = """
    import clipbench
    import numpy as np

    def data(): return np.ones((20, 3)), np.ones(20)

    @clipbench.strategy(per="model")
    def rule(n, threshold): return threshold / n, n > threshold
"""
NET = "import torch\ndef net(inputs, outputs): return torch.nn.Linear(inputs, outputs)\n"


def first_trials(folder: Path) -> list[Trial]:
    experiment = load(folder / "experiment.yaml")
    parts = (experiment.data[0], experiment.models[0], experiment.optimizers[0], experiment.training[0])
    return [Trial(*parts, arm, experiment.seeds[0]) for arm in experiment.arms]


def test_an_edited_file_makes_other_trials_of_what_it_serves_and_only_that(folder):
    write(folder, EXPERIMENT, "experiment.yaml")
    write(folder, OWN.replace("20, 3", "20, 3"))
    write(folder, NET, "model.py")
    before = first_trials(folder)
    again = first_trials(folder)
    assert [trial.id for trial in before] == [trial.id for trial in again]
    write(folder, NET + "# of no consequence, but who knows\n", "model.py")
    edited = first_trials(folder)
    assert not {trial.id for trial in before} & {trial.id for trial in edited}
    assert before[0].data == edited[0].data and before[0].model != edited[0].model
    assert [trial.clip for trial in before] == [trial.clip for trial in edited]


def test_the_same_files_elsewhere_make_the_same_trials(tmp_path):
    ids = []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        for text, file in ((EXPERIMENT, "experiment.yaml"), (OWN, "own.py"), (NET, "model.py")):
            write(folder, text, file)
        ids.append([trial.id for trial in first_trials(folder)])
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    "name, says, remedy",
    [
        ("./own.py:dta", "has no function 'dta'", "Did you mean `data`"),
        ("./onw.py:data", "there is no file", "Did you mean `own.py`"),
        ("./broken.py:data", "cannot import .*broken.py: SyntaxError", ""),
        ("./raises.py:data", "cannot import .*raises.py: ZeroDivisionError", ""),
        ("no_such_package:data", "cannot import 'no_such_package'", "installed"),
        ("no such package:data", "neither a module nor a file", "package.module:function"),
    ],
)
def test_unknown_names_are_refused_with_similar_ones(folder, name, says, remedy):
    write(folder, OWN)
    write(folder, "def data(:\n", "broken.py")
    write(folder, "1 / 0\n", "raises.py")
    with pytest.raises(UnknownName, match=says) as error:
        registry.find("data", name, folder)
    assert remedy in error.value.remedy


def test_a_module_without_a_file_is_no_fault_of_ours(monkeypatch):
    monkeypatch.setitem(sys.modules, "made_of_nothing", types.ModuleType("made_of_nothing"))
    with pytest.raises(UnknownName, match="made_of_nothing has no function 'nothing'"):
        registry.find("model", "made_of_nothing:nothing")


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("model", "os:system", "os belongs to Python itself. Name a function of a file beside the YAML"),
        ("model", "builtins:exec", "builtins belongs to Python itself"),
        ("data", "subprocess:check_output", "subprocess belongs to Python itself"),
        ("data", "numpy:load", "numpy:load is not known to be a data"),
        ("data", "pandas:read_pickle", "pandas:read_pickle is not known to be a data"),
        ("model", "torch:load", "Annotate what it returns (`-> Module`), declare it with @model, or call it in a file"),
        ("loss", "yaml:unsafe_load", "yaml:unsafe_load is not known to be a loss"),
        ("optimizer", "shutil:rmtree", "shutil belongs to Python itself"),
        ("schedule", "tests.toys:system", "posix belongs to Python itself"),
    ],
)
def test_a_package_gives_only_what_is_made_for_its_use(kind, name, says, monkeypatch):
    monkeypatch.setattr("tests.toys.system", os.system, raising=False)
    with pytest.raises(UnknownName) as refused:
        registry.find(kind, name)
    assert says in f"{refused.value} {refused.value.remedy}"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("model", "torch.nn:Linear"),
        ("optimizer", "torch.optim:SGD"),
        ("loss", "torch.nn.functional:mse_loss"),
        ("data", "tests.toys:line"),
        ("script", "tests.scripts.hand_loop:main"),
    ],
)
def test_a_package_gives_what_is_made_for_its_use(kind, name):
    assert registry.find(kind, name).name == name
