"""Plug-ins: what is known of them, and the lookup by name."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from clipbench.errors import ClipbenchError, UnknownName, did_you_mean
from clipbench.plugins import catalogue_file, trust, user_modules
from clipbench.plugins.imported_files import digest_with_imports
from clipbench.plugins.signature import hints, origins

if TYPE_CHECKING:
    from clipbench.core.trial import Component

REQUIRED: Any = inspect.Parameter.empty

# An option that names a file, relative to the YAML; the function gets the absolute path.
File = Annotated[str, "a file"]

# The modules of the built-in plug-ins, and the arguments that clipbench passes itself; all others are options.
HOMES: Mapping[str, str] = {
    "strategy": "clipbench.plugins.strategies",
    "model": "clipbench.plugins.models",
    "data": "clipbench.plugins.data_sources",
    "optimizer": "clipbench.plugins.optimizers",
    "loss": "clipbench.plugins.losses",
    "metric": "clipbench.plugins.metrics",
    "schedule": "clipbench.plugins.schedules",
    "noise": "clipbench.plugins.noise_laws",
    "augmentation": "clipbench.plugins.augmentations",
}
GIVEN: Mapping[str, frozenset[str]] = {
    "strategy": frozenset(
        ["g", "n", "w", "m", "model_n", "model_m", "size", "row_mean", "new", "old", "state", "step"]
    ),
    "model": frozenset({"inputs", "outputs"}),
    "data": frozenset({"generator", "batch_size", "part", "shares", "yaml_folder"}),
    "optimizer": frozenset({"params", "named"}),
    "loss": frozenset({"output", "target", "training"}),
    "metric": frozenset({"output", "target"}),
    "schedule": frozenset({"step", "steps"}),
    "noise": frozenset({"size", "generator"}),
    "augmentation": frozenset({"x", "y", "generator", "outputs"}),
    "script": frozenset({"clip", "seed"}),
}
# The strategy that changes nothing: the baseline, unless `report.baseline` names another arm.
UNCLIPPED = "none"


class DataProblem(ValueError):
    """The data cannot be used, for the reasons that the texts give."""

    def __init__(self, *texts: str) -> None:
        super().__init__("\n".join(texts))
        self.texts = texts


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
        # A data set that is no stream may call options of its own so.
        return named if self.kind != "data" or "generator" in named else named - {"batch_size", "part"}

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
    def family(self) -> str:
        """The first sentence of the module of the function."""
        text = " ".join(catalogue_file.module_doc(self.function).split())
        return re.split(r"(?<=\.)\s", text)[0]

    @property
    def summary(self) -> str:
        return self.doc.split("\n\n", 1)[0].replace("\n", " ")


@cache
def catalogue(kind: str) -> Mapping[str, Plugin]:
    """Return all built-in plug-ins of a kind, in the order of their declaration; scripts are always the user's own."""
    if kind not in HOMES:
        return {}
    if "torch" not in sys.modules and (known := catalogue_file.read()):
        return known[kind]
    catalogue_file.write({each: _imported(each) for each in HOMES})
    return _imported(kind)


def needs_no_torch() -> bool:
    """Whether built-in plug-ins can be looked up without importing torch."""
    return "torch" in sys.modules or catalogue_file.read() is not None


@cache
def _imported(kind: str) -> dict[str, Plugin]:
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
    if not known:
        raise UnknownName(f"{name!r} is not a {kind}.", "Write ./file.py:function or package.module:function.")
    raise UnknownName(f"unknown {kind} {name!r}.", did_you_mean(name, known))


def of(kind: str, component: Component) -> Plugin:
    """The plug-in of a component, as it was when the component was planned."""
    plugin = find(kind, component.name, component.folder)
    if component.source and plugin.source != component.source:
        raise ClipbenchError(f"{component.name}: its file has changed since. Type the same command again.")
    return plugin


def _own(kind: str, name: str, folder: Path) -> Plugin:
    where, _, function_name = name.rpartition(":")
    is_script = kind == "script"
    if user_modules.are_left_out():
        if not where.endswith(".py"):
            trust.refuse_standard_library(where)
        stand_in = _unknown_script if is_script else _unknown_rule if kind == "strategy" else _unknown_function
        return Plugin(kind, name, stand_in, {"per": "model"} if kind == "strategy" else {})
    if where.endswith(".py"):
        module = user_modules.file_module(folder / where, is_script=is_script)
    else:
        module = user_modules.package_module(where)
    function = getattr(module, function_name, None)
    if not callable(function):
        named = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownName(f"{where} has no function {function_name!r}.", did_you_mean(function_name, named))
    declared = getattr(function, "__clipbench__", None)
    facts = declared.facts if isinstance(declared, Plugin) and declared.kind == kind else {}
    if not where.endswith(".py") and not facts:
        trust.refuse_other_uses(kind, name, function, getattr(module, "__file__", None))
    source = module.__dict__[user_modules.SOURCE]
    if is_script and (file := getattr(module, "__file__", None)):  # its results depend on all that it imports
        source = digest_with_imports(Path(file))
    return Plugin(kind, name, function, facts, source)


def _unknown_function(**options: Any) -> Any:
    """A function of a file that is not imported: it takes all options."""
    raise NotImplementedError


def _unknown_rule(n: Any, threshold: float = 1.0, **options: Any) -> Any:
    raise NotImplementedError


def _unknown_script(clip: Any, seed: int, **options: Any) -> Any:
    raise NotImplementedError


def _modules(home: str) -> list[types.ModuleType]:
    root = importlib.import_module(home)
    names = [module.name for module in pkgutil.iter_modules(getattr(root, "__path__", ()))]
    return [importlib.import_module(f"{home}.{name}") for name in names] or [root]
