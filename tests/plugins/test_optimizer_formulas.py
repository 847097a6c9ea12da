"""Formulas of optimizers: the same weights and state as torch's own classes, for one model and for many."""

from __future__ import annotations

import inspect
import itertools
import pickle
import textwrap

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clipbench import engine
from clipbench.config.optimizer_check import refusal
from clipbench.core.trial import Component, Training, Trial
from clipbench.plugins import registry
from clipbench.plugins.decorators import optimizer
from clipbench.plugins.optimizers import make_optimizer

BUILT_IN = {name: each for name, each in registry.catalogue("optimizer").items() if each.facts.get("elementwise")}
# What torch keeps and a formula does not: the number of the step, which it is given, and what has no effect on weights.
NOT_KEPT = {"asgd": {"step", "mu", "ax"}}
SHAPES = ((8, 6), (5,), ())
STEPS = 50
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
# Options that are tested together, or at the ends of what they can be; each is changed alone too.
CASES = {
    "sgd": [
        {"momentum": 0.9, "dampening": 0.3},
        {"momentum": 0.9, "dampening": 1.0, "weight_decay": 0.1},
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    ],
    "adam": [
        {"betas": (0.0, 0.0)},
        {"betas": (0.999, 0.99999)},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"amsgrad": True, "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.1},
    ],
    "adamw": [{"weight_decay": 0.0}, {"weight_decay": 0.3, "amsgrad": True}],
    "adamax": [{"betas": (0.0, 0.0)}],
    "nadam": [
        {"betas": (0.0, 0.0)},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"momentum_decay": 0.0},
        {"momentum_decay": 0.5},
    ],
    "radam": [
        {"betas": (0.9, 0.99)},
        {"betas": (0.9, 0.9999)},
        {"betas": (0.9, 0.7)},
        {"betas": (0.9, 0.6)},  # never rectified
        {"betas": (0.0, 0.0)},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
    ],
    "adagrad": [{"eps": 1e-3, "lr_decay": 0.01, "weight_decay": 0.01, "initial_accumulator_value": 2.0}],
    "adadelta": [{"rho": 0.0}, {"rho": 1.0}],
    "rmsprop": [{"alpha": 0.0}, {"momentum": 0.9}, {"centered": True, "momentum": 0.9, "weight_decay": 0.1}],
    "rprop": [{"step_sizes": (0.01, 0.06)}],
    "asgd": [{"t0": 10.0}, {"alpha": 0.5, "lambd": 0.1}],
}


def another(value):
    """A value of an option that is not its default."""
    if isinstance(value, bool):
        return not value
    return tuple(map(another, value)) if isinstance(value, tuple) else 0.9 * value or 0.1


def cases():
    """Yield each optimizer with its defaults, with each option changed alone where that is allowed, and its cases."""
    for name, plugin in BUILT_IN.items():
        changed = [{key: another(each.default)} for key, each in plugin.options.items() if key != "lr"]
        allowed = [options for options in changed if not refusal(plugin, options)]
        for options in [{}, *allowed, *CASES.get(name, [])]:
            yield name, options


every_case = pytest.mark.parametrize("name, options", list(cases()), ids=str)


@pytest.fixture
def dtype(request):
    """The dtype of the weights, and torch's default, which its optimizers take for what they count."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


every_dtype = pytest.mark.parametrize("dtype", TOLERANCE, indirect=True, ids=str)


def formula_of(name, options):
    """The formula of an optimizer, and its options with their defaults."""
    plugin = BUILT_IN[name]
    defaults = {key: option.default for key, option in plugin.options.items() if key != "lr"}
    return plugin.facts["formula"], defaults | options


def weights(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float32).to(torch.get_default_dtype()) for shape in SHAPES
    ]


def gradients(seed=0):
    """The gradients of each parameter at each step, from 0 to numbers whose square float32 does not have."""
    generator = torch.Generator().manual_seed(seed)
    draws = [[torch.randn(shape, generator=generator, dtype=torch.float32) for shape in SHAPES] for _ in range(STEPS)]
    for number, (matrix, vector, _) in enumerate(draws):
        matrix[0] = 0
        matrix[1] *= number % 3 == 1
        matrix[2] *= 10.0 ** (number % 7 - 3)
        matrix[3:] *= torch.tensor([1.0, 1e-30, 1e-18, 1e15, 1e25])[:, None]
        vector *= number not in (0, 20)
    return [[gradient.to(torch.get_default_dtype()) for gradient in step] for step in draws]


# A learning rate that rises, is constant, falls, and is 0 in the end.
RATES = [0.05 * factor for factor in (0.1, 0.4, 0.7, *[1.0] * 27, *(1 - k / 17 for k in range(1, 18)), 0.0, 0.0, 0.0)]


def by_torch(plugin, options, start):
    """Return the weights after each step, and the state after the last."""
    parameters = [torch.nn.Parameter(w.clone()) for w in start]
    named = [(str(number), parameter) for number, parameter in enumerate(parameters)]
    optimizer = make_optimizer(plugin, named, {**options, "lr": RATES[0], "foreach": False})
    path = []
    for step, lr in zip(gradients(), RATES, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        path.append([parameter.detach().clone() for parameter in parameters])
    return path, [optimizer.state[parameter] for parameter in parameters]


def by_formula(formula, options, start):
    slots, now, path = [formula.start(w, options) for w in start], list(start), []
    for number, (step, lr) in enumerate(zip(gradients(), RATES, strict=True), start=1):
        t, lr = torch.tensor(float(number)), torch.tensor(lr)
        new = [formula(w, g, slot, t, lr, **options) for w, g, slot in zip(now, step, slots, strict=True)]
        now, slots = [w for w, _ in new], [slot for _, slot in new]
        path.append(now)
    return path, slots


def difference(mine, torchs, least=0.0):
    """Return the largest difference of rows, each as a share of the largest number of its element in all rows."""
    assert torch.equal(torch.isnan(mine), torch.isnan(torchs)) and torch.equal(torch.isinf(mine), torch.isinf(torchs))
    finite = torch.where(torch.isfinite(torchs), torchs, 0)
    largest = finite.abs().amax(0).clamp(min=max(least, torch.finfo(mine.dtype).tiny))
    return float(((mine - torchs).abs() / largest).nan_to_num(0, 0).max())


@every_dtype
@every_case
def test_a_formula_gives_the_weights_of_the_class(name, options, dtype):
    formula, options = formula_of(name, options)
    path, slots = by_formula(formula, options, weights())
    expected, state = by_torch(BUILT_IN[name], options, weights())
    for number, start in enumerate(weights()):
        mine, torchs = (torch.stack([step[number] for step in each]) for each in (path, expected))
        assert difference(mine, torchs, float(start.abs().max()) * 1e-3) < TOLERANCE[dtype], f"weights of {number}"
        theirs = {key: value for key, value in state[number].items() if key not in NOT_KEPT.get(name, {"step"})}
        assert set(slots[number]) == set(theirs)
        for key, value in theirs.items():
            mine = slots[number][key]
            assert mine.shape == value.shape, key
            assert difference(mine[None], value.to(mine)[None]) < 100 * TOLERANCE[dtype], key


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_formula_has_the_options_of_the_class(name):
    """The YAML may set those of the class, and the formula gets them."""
    plugin = BUILT_IN[name]
    given = list(inspect.signature(plugin.facts["formula"].function).parameters.values())[5:]
    assert {each.name: each.default for each in given} == {
        key: option.default for key, option in plugin.options.items() if key != "lr"
    }


class _Operators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.__name__.partition(".")[0])
        return function(*args, **(kwargs or {}))


PLAIN = {
    *("add", "sub", "rsub", "mul", "div", "neg", "addcmul", "addcdiv", "lerp", "sqrt", "exp", "expm1", "pow", "sign"),
    *("abs", "maximum", "minimum", "clamp", "where", "eq", "ne", "lt", "le", "gt", "ge", "ones_like", "scalar_tensor"),
}
TIMES = (1.0, 2.0, 5.0, 6.0, 7.0, 50.0, 1000.0, 1e5)


def lanes(formula, options):
    """Weights, gradients, slots, steps and learning rates of several models in the middle of training."""
    many = (len(TIMES), 4, 6)
    slots = formula.slots_with(options).items()
    state = {key: torch.rand(many[:1] if slot.scalar else many) + 0.1 for key, slot in slots}
    if "grad_avg" in state:  # a variance is more than 0
        state["square_avg"] += state["grad_avg"] ** 2
    return torch.randn(many), torch.randn(many), state, torch.tensor(TIMES), torch.rand(many[0])


@every_case
def test_a_formula_runs_for_many_models_by_plain_operators_and_changes_nothing(name, options):
    torch.manual_seed(0)
    formula, options = formula_of(name, options)
    given = lanes(formula, options)
    before = pickle.dumps(given)
    together, slots = torch.func.vmap(lambda *each: formula(*each, **options))(*given)
    for lane in range(len(TIMES)):
        alone = torch.utils._pytree.tree_map(lambda tensor, lane=lane: tensor[lane], given)
        with _Operators() as called:
            new, new_slots = formula(*alone, **options)
        torch.testing.assert_close(together[lane], new, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close({key: slot[lane] for key, slot in slots.items()}, new_slots, rtol=1e-6, atol=1e-7)
        assert not called.names - PLAIN
    assert pickle.dumps(given) == before


@every_case
def test_a_step_loses_no_digits_in_float32(name, options):
    """At any step, also where 1 - b^t is a small difference; from weights 0 the new weights are the step."""
    torch.manual_seed(0)
    formula, options = formula_of(name, options)
    _, g, slots, t, lr = lanes(formula, options)
    given = torch.zeros_like(g), g.abs() + 0.1, slots, t, lr
    exact = torch.utils._pytree.tree_map(torch.Tensor.double, given)
    step, expected = (torch.func.vmap(lambda *each: formula(*each, **options))(*each)[0] for each in (given, exact))
    assert float(((step - expected) / expected).abs().max()) < 2e-6


def test_a_formula_is_pickled_without_what_it_calls():
    formula, options = formula_of("adam", {"amsgrad": True})
    other = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(formula))))
    assert other == formula and list(other.slots_with(options)) == ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]
    w, g, _, t, lr = lanes(formula, options)
    given = w[0], g[0], formula.start(w[0], options), t[0], lr[0]
    assert torch.equal(other(*given, **options)[0], formula(*given, **options)[0])


# A user's own formula

OWN = """
    import torch
    from clipbench.plugins.decorators import optimizer

    @optimizer(slots={"buffer": 0.0}, only_with={"buffer": "momentum"})
    def descent(w, g, slots, t, lr, momentum: float = 0.0):
        if momentum < 0:
            raise ValueError("momentum must be at least 0")
        if not momentum:
            return w - lr * g, {}
        buffer = momentum * slots["buffer"] + g
        return w - lr * buffer, {"buffer": buffer}

    @optimizer(slots={"exp_avg": 0.0})
    def lion(w, g, slots, t, lr=1e-4, betas=(0.9, 0.99), decay: float = 0.0):
        step = torch.sign(torch.lerp(slots["exp_avg"], g, 1 - betas[0]))
        return w * (1 - lr * decay) - lr * step, {"exp_avg": torch.lerp(slots["exp_avg"], g, 1 - betas[1])}

    @optimizer(slots={"a": 0.0})
    def forgetful(w, g, slots, t, lr):
        return w - lr * g, {}

    @optimizer(slots={})
    def silent(w, g, slots, t, lr):
        return w - lr * g
"""


@pytest.fixture
def own(tmp_path):
    """The plug-in of a name in a user's own file."""
    (tmp_path / "own.py").write_text(textwrap.dedent(OWN))
    return lambda name: registry.find("optimizer", f"./own.py:{name}", tmp_path)


def trained(optimizer, **changes):
    data = Component.of("tests.toys:line", examples=30)
    train = Training(
        epochs=None, steps=15, batch_size=8, dtype="float64", save_weights=True, loss=Component.of("mse"), **changes
    )
    clips = [Component.of("none"), Component.of("norm", threshold=0.5, p=2.0, per="model", exclude=())]
    model = Component.of("linear", bias=True)
    trials = [Trial(data, model, optimizer, train, clip, seed) for clip, seed in itertools.product(clips, (0, 1))]
    weights = engine.train(trials).weights
    return [weights[trial.id] for trial in trials]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("schedule", [None, Component.of("cosine", warmup=3)])
def test_an_own_formula_trains_as_the_same_class_of_torch(own, tmp_path, momentum, schedule):
    plugin = own("descent")
    component = Component.of(plugin.name, source=plugin.source, folder=str(tmp_path), lr=0.05, momentum=momentum)
    mine = trained(component, schedule=schedule)
    torchs = trained(Component.of("sgd", lr=0.05, momentum=momentum), schedule=schedule)
    np.testing.assert_allclose(mine, torchs, rtol=1e-12)


def test_options_of_an_own_formula_are_its_parameters(own):
    lion = own("lion")
    assert {key: option.default for key, option in lion.options.items()} == {
        "lr": 1e-4,
        "betas": (0.9, 0.99),
        "decay": 0.0,
    }
    assert own("descent").options["lr"].default is registry.REQUIRED
    assert lion.options["betas"].takes_list and not lion.facts.get("elementwise")
    assert lion.facts["formula"].slots_with({}) == {"exp_avg": (0.0, False)}


def test_an_own_formula_that_cannot_be_used_is_refused(own):
    assert refusal(own("descent"), {"lr": 0.1, "momentum": 0.9}) == ""
    assert "momentum must be at least 0" in refusal(own("descent"), {"lr": 0.1, "momentum": -1.0})
    assert "must return (1, 1) as the shape of slot a, not nothing" in refusal(own("forgetful"), {"lr": 0.1})
    assert "must return the new weights and a mapping" in refusal(own("silent"), {"lr": 0.1})
    with pytest.raises(ValueError, match="begin with w, g, slots, t, lr; got params, lr"):
        optimizer(slots={})(lambda params, lr: None)
