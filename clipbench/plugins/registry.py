"""Plug-ins: the decorators that declare them, how they are found by name, and what options they take."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from clipbench.errors import ClipbenchError, UnknownName, did_you_mean
from clipbench.plugins import user_modules
from clipbench.plugins.signature import hints, origins

if TYPE_CHECKING:
    from clipbench.core.trial import Component

Function = TypeVar("Function", bound=Callable[..., Any])

REQUIRED: Any = inspect.Parameter.empty

# An option that names a file, as seen from the YAML; the function is given its whole path.
File = Annotated[str, "a file"]

# Where built-in plug-ins of a kind live, and the arguments that clipbench passes itself; all others are options.
HOMES: Mapping[str, str] = {
    "strategy": "clipbench.plugins.strategies",
    "model": "clipbench.plugins.models",
    "data": "clipbench.plugins.data_sources",
    "optimizer": "clipbench.plugins.optimizers",
    "loss": "clipbench.plugins.losses",
    "metric": "clipbench.plugins.metrics",
    "schedule": "clipbench.plugins.schedules",
    "noise": "clipbench.plugins.noise_laws",
}
GIVEN: Mapping[str, frozenset[str]] = {
    "strategy": frozenset(
        ["g", "n", "w", "m", "model_n", "model_m", "size", "row_mean", "new", "old", "state", "step"]
    ),
    "model": frozenset({"inputs", "outputs"}),
    "data": frozenset({"generator", "batch_size", "shares", "yaml_folder"}),
    "optimizer": frozenset({"params"}),
    "loss": frozenset({"output", "target"}),
    "metric": frozenset({"output", "target"}),
    "schedule": frozenset({"step", "steps"}),
    "noise": frozenset({"size", "generator"}),
}
# The strategy that changes nothing: the baseline, unless `report.baseline` names another arm.
UNCLIPPED = "none"
PLACES = ("model", "tensor", "unit", "element", "step")
TARGETS = ("gradient", "weights")


class DataProblem(ValueError):
    """The data cannot be used; the text says why."""


@dataclass(frozen=True)
class Option:
    """One keyword argument of a plug-in that a user may set."""

    name: str
    annotation: Any = Any
    default: Any = REQUIRED

    @property
    def takes_list(self) -> bool:
        """Whether a list is one value of it, and not an axis."""
        if isinstance(self.default, list | tuple):
            return True
        return any(
            isinstance(origin, type) and issubclass(origin, Sequence) and not issubclass(origin, str)
            for origin in origins(self.annotation)
        )


@dataclass(frozen=True)
class Plugin:
    """A named function of one kind, and the facts that its decorator states."""

    kind: str
    name: str
    function: Callable[..., Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""  # hash of the user's own file; empty for a built-in

    @cached_property
    def options(self) -> dict[str, Option]:
        annotations = hints(self.function)
        return {
            name: Option(name, annotations.get(name, Any), parameter.default)
            for name, parameter in inspect.signature(self.function).parameters.items()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and name not in self.given | frozenset(self.facts.get("hidden", ()))
        }

    @cached_property
    def given(self) -> frozenset[str]:
        """Which of clipbench's own arguments the function asks for by naming them."""
        passed = GIVEN[self.kind] | frozenset(self.facts.get("given", ()))
        named = passed & frozenset(inspect.signature(self.function).parameters)
        # A data set that is no stream may call an option of its own `batch_size`.
        return named if self.kind != "data" or "generator" in named else named - {"batch_size"}

    @property
    def files(self) -> list[str]:
        """The options that name files."""
        return [name for name, option in self.options.items() if option.annotation == File]

    @property
    def is_stream(self) -> bool:
        """Whether it draws fresh examples at every step."""
        return self.kind == "data" and "generator" in self.given

    @property
    def open(self) -> bool:
        """Whether it takes options that its signature does not name."""
        return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(self.function).parameters.values())

    @property
    def clips(self) -> bool:
        """Whether a strategy changes anything; a user's function that does not declare it does."""
        return bool(self.facts.get("clips", True))

    @property
    def higher_is_better(self) -> bool:
        """The direction of a metric; a user's function that declares none is taken for a score."""
        return bool(self.facts.get("higher_is_better", True))

    @property
    def doc(self) -> str:
        return inspect.cleandoc(self.facts.get("doc") or self.function.__doc__ or "")

    @property
    def summary(self) -> str:
        return self.doc.split("\n\n", 1)[0].replace("\n", " ")


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
    at_zero: str = "everything is clipped away",
    init: Mapping[str, Any] | None = None,
) -> Callable[[Function], Function]:
    """Declare a clipping rule. `per` is the place where it looks:

    model, tensor, unit   it returns (coefficient, fired) for each place
    element               it returns the new elements
    step                  it returns whether the step is kept

    `on="weights"` declares a rule that changes the weights after the optimizer's step: at elements it is given them
    as `new`, those before the step as `old` and the gradient as `g`, at the other places their norm as `w`.

    `search` is the range for Optuna; `loose` the threshold at which it does nothing (None: it always acts);
    `refuses` says that it can skip a whole step, and so survives a gradient that is not finite; `instead` names
    options that can replace the threshold, which is then infinite; `bounds` says that afterwards the 2-norm over the
    whole model is at most the threshold (differential privacy needs that); `clips=False` that it changes nothing;
    `threshold_is_norm` that its threshold is compared with the norm of the whole gradient; `at_zero` what 0 does.

    `init` says what the rule remembers: for each name a number for every place, or (size, number) for a window of
    them. It is given it as `state` and returns it, changed, after what it returns otherwise.
    """
    facts = dict(locals())
    if per not in PLACES:
        raise ValueError(f"per must be one of {', '.join(PLACES)}, got {per!r}")
    if on not in TARGETS or (on == "weights" and per == "step"):
        raise ValueError(f"on must be one of {', '.join(TARGETS)}, and a step is not refused on weights; got {on!r}")
    return _declare("strategy", **facts)


def model(*, given: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Declare a model: a function of options that returns an `nn.Module`.

    It is given `inputs` and `outputs`. `given` asks for more of what the data show: `tokens`, how many different
    whole numbers its inputs are (0: they are real numbers), and `every_step`, whether there is a class to tell at
    every step of a sequence.
    """
    return _declare("model", given=given)


def dataset(
    *,
    standardize: bool = False,
    loss: str = "",
    metrics: tuple[str, ...] = (),
    library: bool = False,
    changes: bool = False,
) -> Callable[[Function], Function]:
    """Declare a data set: a function of options that returns (x, y) or a mapping of train, val and test.

    `loss` and `metrics` are taken where nobody names any and the targets alone would choose others. It is given
    `yaml_folder`, where files that the YAML names are looked up, and `shares`, of val and test, if it names them. A
    `library` has many data sets, of which its first option names one: `openml:mnist_784`; where it `changes`, a name
    may mean other data tomorrow.

    One with a parameter `generator` is a stream: it returns one batch (x, y), drawn from that `torch.Generator`, of
    `batch_size` examples if it has a parameter of that name.
    """
    return _declare("data", standardize=standardize, loss=loss, metrics=metrics, library=library, changes=changes)


def optimizer(**facts: Any) -> Callable[[Function], Function]:
    """Declare an optimizer: a function of params, lr and options that returns a `torch.optim.Optimizer`."""
    return _declare("optimizer", **facts)


def loss(*, metrics: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Declare a loss: a function of output and target that returns a scalar tensor.

    `metrics` judge what it trained where nobody names any and the targets alone would choose others.
    """
    return _declare("loss", metrics=metrics)


def metric(*, higher_is_better: bool) -> Callable[[Function], Function]:
    """Declare a metric: a function of output and target that returns a scalar tensor."""
    return _declare("metric", higher_is_better=higher_is_better)


def schedule() -> Callable[[Function], Function]:
    """Declare a schedule: a function of a step, counted from 0, and of all `steps`, that returns a factor."""
    return _declare("schedule")


def noise() -> Callable[[Function], Function]:
    """Declare a noise law: a function of a size and a generator that returns independent centred draws, float64."""
    return _declare("noise")


def _declare(kind: str, **facts: Any) -> Callable[[Function], Function]:
    def attach(function: Function) -> Function:
        function.__clipbench__ = Plugin(kind, function.__name__, function, facts)  # type: ignore[attr-defined]
        return function

    return attach


@cache
def catalogue(kind: str) -> dict[str, Plugin]:
    """Every built-in plug-in of a kind, in the order in which the files declare them."""
    found = {}
    for module in _modules(HOMES[kind]):
        for value in vars(module).values():
            plugin = value if isinstance(value, Plugin) else getattr(value, "__clipbench__", None)
            if isinstance(plugin, Plugin) and plugin.kind == kind:
                found[plugin.name] = plugin
    return found


def find(kind: str, name: str, folder: str | Path = "") -> Plugin:
    """The plug-in of that name: a built-in, `package.module:function`, or `./file.py:function` beside the YAML."""
    known = catalogue(kind)
    library, _, item = name.partition(":")
    if item and library in known and known[library].facts.get("library"):  # `openml:mnist_784`: its first option is set
        return replace(known[library], name=name, function=functools.partial(known[library].function, item))
    if ":" in name:
        return _own(kind, name, Path(folder))
    if name in known:
        return known[name]
    raise UnknownName(f"unknown {kind} {name!r}.", did_you_mean(name, known))


def of(kind: str, component: Component) -> Plugin:
    """The plug-in of a component, as it was when the component was planned."""
    plugin = find(kind, component.name, component.folder)
    if component.source and plugin.source != component.source:
        raise ClipbenchError(f"{component.name}: its file has changed since. Type the same command again.")
    return plugin


def _own(kind: str, name: str, folder: Path) -> Plugin:
    where, _, function_name = name.rpartition(":")
    module = user_modules.file_module(folder / where) if where.endswith(".py") else user_modules.package_module(where)
    function = getattr(module, function_name, None)
    if not callable(function):
        named = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownName(f"{where} has no function {function_name!r}.", did_you_mean(function_name, named))
    declared = getattr(function, "__clipbench__", None)
    facts = declared.facts if isinstance(declared, Plugin) and declared.kind == kind else {}
    return Plugin(kind, name, function, facts, module.__dict__[user_modules.SOURCE])


def _modules(home: str) -> list[types.ModuleType]:
    root = importlib.import_module(home)
    names = [module.name for module in pkgutil.iter_modules(getattr(root, "__path__", ()))]
    return [importlib.import_module(f"{home}.{name}") for name in names] or [root]
