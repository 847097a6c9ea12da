"""`clipbench.Clipper` and `clipbench.clip_` in loops of PyTorch."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

import clipbench
from clipbench.core.trial import Component
from clipbench.errors import ClipbenchError, InputError, Unsupported
from clipbench.plugins import registry

RULES = registry.catalogue("strategy")


def model_of(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def backward(model: nn.Module, seed: int = 0, scale: float = 1.0) -> None:
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = scale * torch.randn(parameter.shape, generator=draw).to(parameter)


def gradients(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# How a rule is written

WRITTEN = [
    ("norm(per=tensor)@0.5", {}),
    ({"name": "norm", "threshold": 0.5, "per": "tensor"}, {}),
    ("norm", {"threshold": 0.5, "per": "tensor"}),
    ("norm@0.5", {"per": "tensor"}),
    (Component.of("norm", threshold=0.5, per="tensor", p=2.0, exclude=(), label="norm(per=tensor)"), {}),
]


@pytest.mark.parametrize(("rule", "options"), WRITTEN)
def test_a_rule_can_be_written_as_tables_the_yaml_and_python_write_it(rule, options):
    model = model_of()
    backward(model)
    clipper = clipbench.Clipper(model, rule, **options)
    clipper()
    assert clipper.arm == WRITTEN[-1][0] and clipper.arm.arm == "norm(per=tensor)@0.5"
    assert all(float(p.grad.norm()) <= 0.5 for p in model.parameters())


ARMS = [
    "none",
    "value@off",
    "agc(exclude=[2])@0.01",
    "norm(p=inf, per=unit)@0.5",
    "zclip(alpha=0.9, warmup=4)@2.5",
    "norm(exclude=[*.bias, 0])@1.0",
    "norm(schedule=linear(final=0.1))@1.0",
    "norm(schedule=follow_lr, warmup=3)@1.0",
    "norm(groups=[*.bias: 0.5, 0 2: null])@2.0",
]


@pytest.mark.parametrize("arm", ARMS)
def test_the_name_of_an_arm_makes_that_arm(arm):
    assert clipbench.Clipper(model_of(), arm, steps=10).arm.arm == arm


WRONG = [
    ("nrom@1", {}, "nrom@1: unknown strategy 'nrom'. Did you mean `norm`?"),
    ("norm@-1", {}, "norm@-1: threshold: threshold must be at least 0, got -1. Write null (or inf) to turn it off."),
    ("norm@x", {}, "norm@x: threshold: expected a number or null, got 'x'."),
    ("norm", {"thresold": 1}, "norm: thresold: norm has no option 'thresold'. Did you mean `threshold`?"),
    ("norm(p=0)@1", {}, "norm(p=0)@1: p: must be greater than 0, got 0."),
    ("norm@1", {"threshold": 2}, "norm@1: threshold is given twice. Keep one of them."),
    ("norm", {"threshold": [1, 2]}, "norm: threshold: a clipper takes one value of threshold, got 2."),
    ("norm@1", {"exclude": "had"}, "norm(exclude=[had])@1.0: exclude: no parameter matches 'had'."),
    (
        "norm@1",
        {"exclude": "*"},
        "norm(exclude=[*])@1.0: exclude: exclude matches every trained parameter of the model",
    ),
    ("norm@1", {"groups": [1.0]}, "groups has 1 thresholds, and the model has 4 trained parameters"),
    ("norm@1", {"schedule": "linear"}, "norm(schedule=linear)@1.0: the schedule linear needs the number of steps."),
    ("norm@1", {"scope": "sample"}, "scope needs the gradient of each part of a batch"),
    ("norm@1", {"scope": "sample", "noise": 1.0}, "noise needs the gradient of each part of a batch"),
    ("norm@1", {"scope": "sample", "adapt": 0.5}, "adapt needs the gradient of each part of a batch"),
    ("skip@1", {"per": "unit"}, "skip works on each step and has no option `per`."),
    ({"norm": 1.0}, {}, "this rule has no `name`"),
    (3, {}, "3: a rule cannot be of type int."),
    (Component.of("norm", threshold=1.0, per="model", p=2.0), {"p": 1.0}, "a Component has all of its options"),
    ("norm(p)@1", {}, "expected option=value in the parentheses, got 'p'."),
    ("norm", {"threshold": object()}, "expected a number, a string"),
]


@pytest.mark.parametrize(("rule", "options", "sentence"), WRONG)
def test_a_mistake_is_said_as_in_the_yaml(rule, options, sentence):
    with pytest.raises(InputError) as error:
        clipbench.Clipper(model_of(), rule, **options)
    assert sentence in str(error.value)


def test_a_rule_of_ones_own_is_found_in_its_file(tmp_path, monkeypatch):
    (tmp_path / "rules.py").write_text(
        "import clipbench\n\n\n"
        "@clipbench.strategy(per='tensor')\n"
        "def half(n, threshold):\n"
        "    return threshold * n.new_full(n.shape, 0.5), n > 0\n"
    )
    monkeypatch.chdir(tmp_path)
    model = model_of()
    backward(model)
    before = gradients(model)
    clipper = clipbench.Clipper(model, "./rules.py:half@1.0")
    monkeypatch.chdir("/")
    clipper()
    assert torch.equal(gradients(model), before / 2)


# Clipping


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_norm_is_torchs_clip_grad_norm(p):
    one, other = model_of(), model_of()
    for step in range(3):
        backward(one, step), backward(other, step)
        info = clipbench.Clipper(one, "norm@0.5", p=p)()
        clip_grad_norm_(other.parameters(), 0.5, norm_type=p)
        torch.testing.assert_close(gradients(one), gradients(other), rtol=1e-6, atol=0)
        backward(other, step)
        torch.testing.assert_close(info.norm, gradients(other).norm())
        assert bool(info.fired) and bool(info.keep) and info.statistics is None


def test_value_is_torchs_clip_grad_value():
    one, other = model_of(), model_of()
    backward(one), backward(other)
    clipbench.clip_(one.parameters(), "value", threshold=0.3)
    clip_grad_value_(other.parameters(), 0.3)
    assert torch.equal(gradients(one), gradients(other))


def test_excluded_parameters_stay_as_they_are():
    model = model_of()
    backward(model)
    head, norm = model[2].weight.grad.clone(), gradients(model).norm()
    info = clipbench.Clipper(model, "norm@0.1", exclude=["2"])()
    assert torch.equal(model[2].weight.grad, head) and float(model[0].weight.grad.norm()) < 0.1
    torch.testing.assert_close(info.norm, norm)


def test_parameters_without_a_gradient_are_left_out():
    model, other = model_of(), model_of()
    backward(model), backward(other)
    model[0].weight.grad = other[0].weight.grad = None
    clipbench.Clipper(model, "norm@0.1")()
    clip_grad_norm_(other.parameters(), 0.1)
    assert model[0].weight.grad is None
    torch.testing.assert_close(gradients(model), gradients(other))


@pytest.mark.parametrize("arm", ["norm@0.1", "skip@0.1", "autoclip@10", "max_norm@0.1", "none"])
def test_without_any_gradient_nothing_happens(arm):
    model = model_of()
    before = weights(model)
    info = clipbench.Clipper(model, arm, measure=True).step(torch.optim.SGD(model.parameters(), lr=0.1))
    assert (float(info.norm), bool(info.fired), bool(info.keep)) == (0.0, False, True)
    assert info.statistics.tolist() == [0, 0, 0, 0, 0, 1]
    assert torch.equal(weights(model), before)


def test_frozen_parameters_are_clipped_from_when_they_are_trained():
    """What was remembered of the others stays."""
    model, whole = model_of(), model_of()
    model[0].requires_grad_(False)
    clipper = clipbench.Clipper(model, "ema_norm@1.5", per="unit")
    reference = clipbench.Clipper(whole, "ema_norm@1.5", per="unit")
    for step in range(3):
        backward(model, step), backward(whole, step)
        for one, other in zip(model[2].parameters(), whole[2].parameters(), strict=True):
            one.grad = other.grad.clone()
        clipper(), reference()
    model[0].requires_grad_(True)
    backward(model, 9, 10.0), backward(whole, 9, 10.0)
    clipper(), reference()
    assert torch.equal(model[2].weight.grad, whole[2].weight.grad)
    raw = model_of()
    backward(raw, 9, 10.0)
    assert torch.equal(model[0].weight.grad, raw[0].weight.grad)  # its first norm limits later ones
    backward(model, 9, 100.0)
    clipper()
    assert float(model[0].weight.grad.norm()) < 200


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norms_of_half_precision_are_computed_in_float32(dtype):
    model = nn.Linear(300, 300, dtype=dtype)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 10.0)
    info = clipbench.Clipper(model, "norm@1.0")()
    assert info.norm.dtype == torch.float32
    torch.testing.assert_close(info.norm, torch.tensor(10.0 * math.sqrt(90300)), rtol=1e-3, atol=0)
    assert gradients(model).dtype == dtype
    torch.testing.assert_close(gradients(model).float().norm(), torch.tensor(1.0), rtol=1e-2, atol=0)


def test_a_tied_parameter_is_clipped_once():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(4, 4, bias=False)
            self.other = nn.Linear(4, 4, bias=False)
            self.other.weight = self.one.weight

    model = Tied()
    model.one.weight.grad = torch.ones(4, 4)
    for parameters in (model, [model.one.weight, model.other.weight]):
        assert float(clipbench.Clipper(parameters, "norm@off")().norm) == 4.0


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(Unsupported, match=r"the gradient of weight is sparse.*sparse=False"):
        clipbench.Clipper(embedding, "norm@1.0")()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of the compiler
@pytest.mark.parametrize("whole", [True, False])
def test_a_compiled_model_has_the_names_of_the_model(whole):
    """And its gradients are those of the model."""
    model, plain = model_of(), model_of()
    compiled = torch.compile(model, backend="eager") if whole else model
    if not whole:
        model[2] = torch.compile(model[2], backend="eager")
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    for each in (compiled, plain):
        each(x).square().sum().backward()
        clipbench.Clipper(each, "agc@0.01", exclude=["2.bias"])()
    torch.testing.assert_close(gradients(model), gradients(plain))
    state = clipbench.Clipper(compiled, "zclip@2.0").state_dict()
    clipbench.Clipper(plain, "zclip@2.0").load_state_dict(state)


@pytest.mark.parametrize("given", [[], nn.Identity(), ["weight"], [("weight", 3)]])
def test_what_is_no_parameter_is_refused(given):
    with pytest.raises(InputError, match=r"Pass a module, its parameters\(\)"):
        clipbench.Clipper(given, "norm@1.0")


def test_patterns_need_names():
    with pytest.raises(InputError, match="these have no names"):
        clipbench.Clipper(model_of().parameters(), "norm@1.0", exclude=["head"])


def test_error_if_nonfinite_raises_as_torch_does():
    model = model_of()
    backward(model)
    model[0].weight.grad[0, 0] = math.nan
    before = gradients(model)
    with pytest.raises(RuntimeError, match="non-finite"):
        clipbench.Clipper(model, "norm@1.0", error_if_nonfinite=True)()
    torch.testing.assert_close(gradients(model), before, equal_nan=True, rtol=0, atol=0)


# The step


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_a_refused_step_leaves_weights_and_the_optimizer_as_they_were(optimizer):
    model = model_of()
    steps = optimizer(model.parameters(), lr=0.1, **({"momentum": 0.9} if optimizer is torch.optim.SGD else {}))
    clipper = clipbench.Clipper(model, "skip@100.0")
    backward(model)
    assert bool(clipper.step(steps).keep)
    before, state = weights(model), copy.deepcopy(steps.state_dict())
    backward(model, scale=1000.0)
    assert not bool(clipper.step(steps).keep)
    assert torch.equal(weights(model), before)
    for one, other in zip(state["state"].values(), steps.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_clipping_and_the_step_can_be_called_one_after_the_other():
    one, other = model_of(), model_of()
    backward(one), backward(other)
    clipper = clipbench.Clipper(one, "norm@0.1")
    steps = torch.optim.Adam(one.parameters())
    info = clipper()
    assert clipper.commit(steps) is info
    clipbench.Clipper(other, "norm@0.1").step(torch.optim.Adam(other.parameters()))
    assert torch.equal(weights(one), weights(other))
    with pytest.raises(ClipbenchError, match=r"Call `clipper\(\)` before"):
        clipper.commit(steps)


@pytest.mark.parametrize("rule", ["max_norm@0.1", "norm(after=momentum)@0.1"])
def test_what_acts_after_the_optimizer_says_how_to_call_it(rule):
    model = model_of()
    with pytest.raises(ClipbenchError, match=r"Call `clipper.step\(optimizer\)`"):
        clipbench.Clipper(model, rule)()


@pytest.mark.parametrize("arm", ["norm@0.5", "skip@0.5", "norm(after=momentum)@0.1", "weight_clamp@0.1", "zclip@2.0"])
def test_a_scaled_loss_is_clipped_as_an_unscaled_one(arm):
    one, other = model_of(), model_of()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    clippers = [clipbench.Clipper(model, arm, measure=True) for model in (one, other)]
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.1) for model in (one, other)]
    for step in range(5):
        backward(one, step, scale=scaler.get_scale()), backward(other, step)
        scaler.scale(torch.zeros(()))  # which prepares the scaler, as the loss does
        if step == 1:
            scaler.unscale_(optimizers[0])  # by hand
        mine, expected = clippers[0].step(optimizers[0], scaler), clippers[1].step(optimizers[1])
        torch.testing.assert_close(mine.statistics, expected.statistics)
        torch.testing.assert_close(weights(one), weights(other))
    assert scaler.get_scale() == 4096.0


@pytest.mark.parametrize("arm", ["norm@0.5", "skip_nonfinite", "zclip@2.0", "norm(after=momentum)@0.1", "halve@0.1"])
def test_a_step_that_the_scaler_leaves_out_changes_no_weight(arm):
    model = model_of()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    steps = torch.optim.Adam(model.parameters(), lr=0.1)
    before = weights(model)
    backward(model, scale=math.inf)
    scaler.scale(torch.zeros(()))
    clipbench.Clipper(model, arm).step(steps, scaler)
    assert torch.equal(weights(model), before)
    assert scaler.get_scale() == 512.0 and not steps.state


# What is remembered


@pytest.mark.parametrize("arm", ["zclip(warmup=3)@1.0", "autoclip(window=4, per=unit)@50.0", "norm(warmup=6)@0.1"])
def test_a_saved_clipper_goes_on_where_it_was(arm, tmp_path):
    model = model_of()
    whole, first, second = (clipbench.Clipper(model, arm, measure=True) for _ in range(3))
    for step in range(10):
        if step == 5:
            torch.save(first.state_dict(), tmp_path / "clipper.pt")
            second.load_state_dict(torch.load(tmp_path / "clipper.pt"))
        infos = []
        for clipper in (whole, first if step < 5 else second):
            backward(model, step, 1.5**step)
            infos.append(clipper().statistics)
        assert torch.equal(*infos)


def test_the_state_of_another_rule_is_refused():
    model = model_of()
    state = clipbench.Clipper(model, "zclip@2.0").state_dict()
    with pytest.raises(InputError, match=r"a state of zclip cannot be loaded"):
        clipbench.Clipper(model, "autoclip@10.0").load_state_dict(state)
    small = clipbench.Clipper(model, "zclip@2.0", per="tensor")
    backward(model)
    small()
    before = small.state_dict()
    with pytest.raises(InputError, match="the shapes in the state differ"):
        small.load_state_dict(state)
    assert all(torch.equal(before["memory"][name], value) for name, value in small.state_dict()["memory"].items())
    with pytest.raises(InputError, match=r"there is no 0\.weight"):
        clipbench.Clipper(nn.Linear(2, 2), "zclip@2.0").load_state_dict(state)


@pytest.mark.parametrize("arm", ["zclip@2.0", "norm(warmup=3)@1.0", "norm(schedule=follow_lr)@1.0", "skip_sigma@2.0"])
def test_a_rule_with_memory_is_no_function(arm):
    with pytest.raises(InputError, match=r"Make a clipbench\.Clipper"):
        clipbench.clip_(model_of(), arm)


# What it costs to import


def test_a_clipper_imports_torch_and_nothing_heavy_beside_it():
    code = (
        "import sys, torch, clipbench\n"
        "model = torch.nn.Linear(2, 2)\n"
        "model(torch.ones(1, 2)).sum().backward()\n"
        "clipbench.Clipper(model, 'agc@0.01', measure=True)()\n"
        "heavy = ('mlflow', 'optuna', 'pandas', 'pyarrow', 'scipy', 'sklearn', 'matplotlib', 'typer', 'sqlalchemy',\n"
        "         'torch.distributed.tensor')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
