"""An arm as code: what is printed is run, and clips as the engine does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipbench.core.arm_label import ArmLabel
from clipbench.core.trial import Component
from clipbench.plugins import registry
from clipbench.reporting.arm_code import CLIPPER, NONE, OPTAX, TITLES, TORCH, CodedArm
from tests.given_gradient import SHAPES, given
from tests.gradients import ELEMENTS, SIZES, Engine

RULES = registry.catalogue("strategy")
WEIGHTS = np.random.default_rng(1).normal(size=ELEMENTS).astype(np.float32)
GRADIENTS = np.random.default_rng(0).normal(size=ELEMENTS).astype(np.float32)
# Every rule with its defaults where a library has it, and the options that it has there.
CASES = [
    *((name, {}) for name, rule in RULES.items() if rule.facts["elsewhere"]),
    ("norm", {"p": 1.0}),
    ("norm", {"p": float("inf")}),
    ("norm", {"per": "tensor"}),
    ("tensor_norm", {"p": 1.0}),
    ("tensor_norm", {"per": "model"}),
    ("agc", {"eps": 0.5}),
]
LR = 0.5


def component(name, options, threshold=0.1):
    rule = RULES[name]
    known = {option: spec.default for option, spec in rule.options.items()} | options
    known |= {"threshold": threshold} if "threshold" in rule.options else {}
    shown = [f"{key}={_text(value)}" for key, value in options.items()]
    return Component.of(name, label=f"{name}({', '.join(shown)})" if shown else name, **known)


def _text(value):
    """As labels have it."""
    return ".inf" if value == float("inf") else f"[{', '.join(value)}]" if isinstance(value, tuple) else value


def coded(arm):
    return CodedArm(arm.arm, arm.label, arm.as_dict().get("threshold"))


def by_engine(arm):
    return Engine([arm], weights=WEIGHTS).step(GRADIENTS[None])[0]


def split(flat):
    parts = np.split(flat, np.cumsum(list(SIZES.values()))[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(SHAPES.items(), parts, strict=True)}


def filled():
    """A model with the given weights and gradient."""
    model = given()
    with torch.no_grad():
        for name, weight in split(WEIGHTS).items():
            getattr(model, name).copy_(torch.from_numpy(weight))
            getattr(model, f"{name}_gradient").copy_(torch.from_numpy(split(GRADIENTS)[name]))
    return model


def trained(lines):
    """The weights of such a model after the lines."""
    model = filled()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    exec(compile("\n".join(lines), "printed.py", "exec"), {"model": model, "optimizer": optimizer, "loss": model()})
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).numpy()


def cases(library):
    """The rules and options that a library has."""
    known = [(name, options) for name, options in CASES if coded(component(name, options)).code(library).lines]
    return pytest.mark.parametrize(("name", "options"), known)


@cases(TORCH)
def test_torch_clips_as_the_engine(name, options):
    arm = component(name, options)
    np.testing.assert_allclose(
        trained(coded(arm).code(TORCH).lines), WEIGHTS - LR * by_engine(arm), rtol=1e-5, atol=1e-6
    )


@cases(OPTAX)
def test_optax_clips_as_the_engine(name, options):
    optax = pytest.importorskip("optax")
    import jax.numpy as jnp

    arm = component(name, options)
    # Flax has the inputs before the outputs: [inputs, outputs], and filters [height, width, inputs, outputs].
    params, grads = ({k: jnp.asarray(v.T) for k, v in split(flat).items()} for flat in (WEIGHTS, GRADIENTS))
    lines = {"optimizer": optax.sgd(LR)}
    exec(compile(coded(arm).code(OPTAX).text, "printed.py", "exec"), lines)
    updates, _ = lines["optimizer"].update(grads, lines["optimizer"].init(params), params)
    found = np.concatenate([np.asarray(updates[name]).T.ravel() for name in SHAPES])
    np.testing.assert_allclose(found, -LR * by_engine(arm), rtol=1e-5, atol=1e-6)


def test_torch_and_optax_have_the_rules_that_they_are_said_to_have():
    own = {
        library: [name for name, rule in RULES.items() if library in (rule.facts["elsewhere"] or {})]
        for library in TITLES
    }
    assert own[TORCH] == ["value", "norm", "tensor_norm"] and own["lightning"] == ["value", "norm"]
    assert own["transformers"] == ["norm"] and own[CLIPPER] == []
    assert own[OPTAX] == ["value", "sign", "norm", "agc", "normalize", "rms"]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_code_for_a_clipper_and_for_trainers(name):
    arm = component(name, {})
    for library in (CLIPPER, "lightning", "transformers"):
        code = coded(arm).code(library)
        compile(code.text, "printed.py", "exec")
        assert (f'"{arm.arm}"' in code.text) == code.is_adapted


def test_options_that_a_library_lacks_are_left_to_clipbench():
    for label in (
        "norm(exclude=[head])",
        "norm(after=optimizer)",
        "norm(warmup=10)",
        "norm(per=unit)",
        "value(lower=0.0)",
    ):
        arm = CodedArm(f"{label}@1.0", label, 1.0)
        assert not arm.code(TORCH).lines and not arm.code(OPTAX).lines
        assert arm.code("lightning").is_adapted and arm.code("transformers").is_adapted
        assert "`--to clipper` has every rule" in arm.code(OPTAX).remedy


def test_a_schedule_needs_the_number_of_steps_which_trainers_know():
    for schedule, steps in (("cosine(final=0.1)", ", steps=steps"), ("follow_lr", "")):
        label = f"norm(schedule={schedule})"
        arm = CodedArm(f"{label}@1.0", label, 1.0)
        assert f'(model, "{label}@1.0"{steps})' in arm.code(CLIPPER).text
        assert f'LightningClip("{label}@1.0")' in arm.code("lightning").text


@pytest.mark.parametrize("label", ["max_norm", "norm(after=optimizer)"])
def test_a_rule_that_acts_after_the_step_wraps_the_optimizer_of_a_trainer(label):
    for library in ("lightning", "transformers"):
        code = CodedArm(f"{label}@1.0", label, 1.0).code(library)
        assert f'optimizer = ClippedOptimizer(optimizer, model, "{label}@1.0")' in code.text and code.is_adapted


def test_clipping_per_example_has_no_code_and_names_opacus():
    label = "norm(scope=sample, noise=1.0)"
    for code in CodedArm(f"{label}@1.0", label, 1.0).codes:
        assert not code.lines and "Opacus" in code.remedy and "(scope, noise)" in code.why_not


@pytest.mark.parametrize(("arm", "label"), [("none", "none"), ("norm@off", "norm")])
def test_no_clipping_is_code_too(arm, label):
    codes = CodedArm(arm, label, None).codes
    assert [code.lines for code in codes] == [NONE[library] for library in TITLES]
    np.testing.assert_allclose(trained(codes[0].lines), WEIGHTS - LR * GRADIENTS, rtol=1e-6)
    assert "max_grad_norm=0.0" in codes[3].text  # the Trainer clips unless it is told not to


@pytest.mark.parametrize(
    ("label", "name", "options"),
    [
        ("norm", "norm", {}),
        ("norm(per=tensor, exclude=[head, *.bias])", "norm", {"per": "tensor", "exclude": "[head, *.bias]"}),
        ("norm(schedule=cosine(warmup=5, final=0.1))", "norm", {"schedule": "cosine(warmup=5, final=0.1)"}),
        ("./mine.py:rule(a={b: 1, c: 2})", "./mine.py:rule", {"a": "{b: 1, c: 2}"}),
    ],
)
def test_a_label_is_taken_apart(label, name, options):
    assert ArmLabel.parse(label) == ArmLabel(name, options)


CLIPPED = [
    *CASES,
    ("agc", {"exclude": ("matrix",)}),
    ("value", {"lower": 0.0}),
    ("skip", {}),
    ("drop", {}),
    ("tanh", {}),
]


@pytest.mark.parametrize(("name", "options"), CLIPPED)
def test_the_clipper_clips_as_the_engine(name, options):
    arm = component(name, options)
    code = coded(arm).code(CLIPPER)
    assert code.is_adapted
    np.testing.assert_allclose(trained(code.lines), WEIGHTS - LR * by_engine(arm), rtol=1e-5, atol=1e-6)
