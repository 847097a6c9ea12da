"""The decorators that declare plug-ins: functions with a kind and the facts that clipbench needs about them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from clipbench.plugins.formula import ARGUMENTS, Formula
from clipbench.plugins.registry import Plugin

Function = TypeVar("Function", bound=Callable[..., Any])

PLACES = ("model", "tensor", "unit", "column", "element", "step")
TARGETS = ("gradient", "weights")

# Options of classes of torch.optim that choose an implementation, and `maximize`, which the sign of a loss replaces.
OF_THE_CLASS = ("foreach", "fused", "capturable", "differentiable", "maximize")


def strategy(
    *,
    per: str,
    on: str = "gradient",
    search: tuple[float, float] | None = None,
    loose: float | None = None,
    refuses: bool = False,
    instead: tuple[str, ...] = (),
    bounds: bool = False,
    clips: bool = True,
    threshold_is_norm: bool = False,
    largest: float | None = None,
    at_zero: str = "all gradients become zero",
    init: Mapping[str, Any] | None = None,
    clamps: bool = False,
    quiet: tuple[str, ...] = (),
    elsewhere: Mapping[str, str] | None = None,
) -> Callable[[Function], Function]:
    """Declare a clipping rule.

    Parameters
    ----------
    per
        What the rule sees, and therefore returns: at `model`, `tensor`, `unit` and `column` (coefficient, fired) for
        each of them, at `element` the new elements, at `step` whether the step is kept.
    on
        `gradient`, or `weights` for a rule that changes the weights after the optimizer's step. At elements that rule
        gets them as `new`, those before the step as `old` and the gradient as `g`; elsewhere their norm as `w`.
    search
        The range of thresholds that a sweep searches by default.
    loose
        The threshold at which the rule does nothing; None if it always acts.
    refuses
        Whether the rule can skip a whole step, and so survives a gradient that is not finite.
    instead
        Options that can replace the threshold, which is then infinite.
    bounds
        Whether the 2-norm over the whole model is at most the threshold afterwards, as differential privacy requires.
    clips
        False for the rule that changes nothing.
    threshold_is_norm
        Whether the threshold is compared with the norm of the whole gradient.
    largest
        The largest threshold that the rule accepts; None if it accepts every number that is at least 0.
    at_zero
        The effect of the threshold 0, in words.
    init
        The initial state: for each name a number per place, or (size, number) for a window of numbers. The rule gets
        it as `state` and returns the new state after its other results.
    clamps
        Whether the rule clamps every element to the same two bounds: what it makes of -inf and inf.
    quiet
        Options that are no part of labels and trial ids at their default, so that an option can be added without
        training anything anew.
    elsewhere
        The same rule in other libraries (`torch`, `lightning`, `transformers`, `optax`): a call, or the arguments of a
        trainer, with `{threshold}`, `{parameters}` and the rule's options as in `eps={eps}`, which have the same
        defaults there. With an option that the text does not name, the library has no such rule.
    """
    facts = dict(locals())
    if per not in PLACES:
        raise ValueError(f"per must be one of {', '.join(PLACES)}, got {per!r}")
    if on not in TARGETS or (on == "weights" and per == "step"):
        raise ValueError(f"on must be one of {', '.join(TARGETS)}, and a step is not refused on weights; got {on!r}")
    return _declare("strategy", **facts)


def model(*, given: tuple[str, ...] = (), quiet: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Declare a model: a function of options that returns an `nn.Module`.

    It gets `inputs` and `outputs`, the sizes, if it has parameters of these names. `given` requests further facts
    about the data: `tokens`, the number of distinct integers in the inputs (0 for real numbers), and `every_step`,
    whether there is a target at every step of a sequence. `quiet` options are no part of labels and trial ids at their
    default.
    """
    return _declare("model", given=given, quiet=quiet)


def dataset(
    *,
    standardize: bool = False,
    loss: str = "",
    metrics: tuple[str, ...] = (),
    library: bool = False,
    changes: bool = False,
) -> Callable[[Function], Function]:
    """Declare a data set: a function of options that returns (x, y) or a mapping of train, val and test.

    In the place of (x, y) it may return a `torch.utils.data.Dataset` of such pairs.

    It gets `yaml_folder`, to which file names in the YAML are relative, and `shares`, those of validation and test
    data, if it has parameters of these names. A function with a parameter `generator` is a stream: it returns one batch
    (x, y), drawn from that `torch.Generator`, of `batch_size` examples if it has that parameter, and of the `part`
    `train`, `val` or `test` if it has that one.

    Parameters
    ----------
    standardize
        Whether the inputs are scaled to mean 0 and standard deviation 1 by default.
    loss, metrics
        The defaults, if they differ from those for this kind of targets.
    library
        Whether it has many data sets, of which its first option names one: `openml:mnist_784`.
    changes
        Whether the data of a name may change over time.
    """
    return _declare("data", standardize=standardize, loss=loss, metrics=metrics, library=library, changes=changes)


def optimizer(
    *,
    slots: Mapping[str, float | str] | None = None,
    scalars: Mapping[str, float | str] | None = None,
    only_with: Mapping[str, str] | None = None,
    torch_class: type | None = None,
    **facts: Any,
) -> Callable[[Function], Function]:
    """Declare an optimizer: a function of params, lr and options that returns a `torch.optim.Optimizer`, or a formula.

    A formula has `slots`, if only `{}`. It is a function `new_w, new_slots = f(w, g, slots, t, lr, ...)` of one
    parameter, its gradient, its state, the number of the step from 1, the learning rate and options, and is compiled
    with the rest of a training step: it must not change its arguments, and may branch on options only. For example:

        @optimizer(slots={"exp_avg": 0.0})
        def lion(w, g, slots, t, lr, betas=(0.9, 0.99)):
            step = torch.sign(torch.lerp(slots["exp_avg"], g, 1 - betas[0]))
            return w - lr * step, {"exp_avg": torch.lerp(slots["exp_avg"], g, 1 - betas[1])}

    Parameters
    ----------
    slots
        The state of a formula: for each name the initial number of all elements, or the option that gives it.
    scalars
        The same for state that is one number per parameter.
    only_with
        For each slot that there is not always, the option that must not be 0 or False.
    torch_class
        Of a built-in formula the class of torch.optim with the same options and the same steps; it checks the options.
    """
    if slots is None:
        return _declare("optimizer", **facts)

    def attach(function: Function) -> Function:
        names = tuple(inspect.signature(function).parameters)[:5]
        if names != (*ARGUMENTS, "lr"):
            raise ValueError(f"the arguments of a formula begin with w, g, slots, t, lr; got {', '.join(names)}")
        formula = Formula(function, slots, scalars or {}, only_with or {})
        known = facts | {"formula": formula}
        if torch_class:
            known |= {"elementwise": True, "hidden": OF_THE_CLASS, "doc": inspect.cleandoc(function.__doc__ or "")}
        else:
            known |= {"given": ARGUMENTS}
        return _attached(Plugin("optimizer", function.__name__, torch_class or function, known), function)

    return attach


def loss(*, metrics: tuple[str, ...] = (), quiet: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Declare a loss: a function of output and target that returns a scalar tensor.

    It gets `training`, whether it is what is minimized or the measure of an evaluation, if it has such a parameter.
    `metrics` are the default metrics, if they differ from those for this kind of targets. Options that are `quiet` are
    no part of labels and trial ids at their default, so that an option can be added without training anything anew.
    """
    return _declare("loss", metrics=metrics, quiet=quiet)


def metric(*, higher_is_better: bool) -> Callable[[Function], Function]:
    """Declare a metric: a function of output and target that returns a scalar tensor."""
    return _declare("metric", higher_is_better=higher_is_better)


def schedule() -> Callable[[Function], Function]:
    """Declare a schedule: a function of `step`, from 0, and of the number of `steps` that returns a factor."""
    return _declare("schedule")


def noise() -> Callable[[Function], Function]:
    """Declare noise: a function of a size and a generator that returns independent centred draws, float64."""
    return _declare("noise")


def augmentation() -> Callable[[Function], Function]:
    """Declare an augmentation: a function of `x`, the inputs of a batch, that returns them changed.

    It gets `generator`, from which it draws, `outputs`, the number of classes or targets, and the targets `y`, if it
    has parameters of these names. With `y`, it returns both.
    """
    return _declare("augmentation")


def _declare(kind: str, **facts: Any) -> Callable[[Function], Function]:
    def attach(function: Function) -> Function:
        return _attached(Plugin(kind, function.__name__, function, facts), function)

    return attach


def _attached(plugin: Plugin, function: Function) -> Function:
    function.__clipbench__ = plugin  # type: ignore[attr-defined]
    return function
