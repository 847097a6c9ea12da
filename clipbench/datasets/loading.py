"""Load a data set: call its function, split, impute, check, resize, corrupt, standardize, compute the fingerprint."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from clipbench.core import generators
from clipbench.core.trial import Component, Value
from clipbench.datasets import frames
from clipbench.datasets.augmentation import Augmentation
from clipbench.datasets.corrupt import corrupted
from clipbench.datasets.dataset import Dataset, check, fingerprint_of
from clipbench.datasets.file_stamps import stamps, whole_path
from clipbench.datasets.opened import is_unloaded, opened
from clipbench.datasets.preprocess import imputed, resized, standardized
from clipbench.datasets.read_options import ReadOptions
from clipbench.datasets.split import parts_of
from clipbench.datasets.stream import open_stream
from clipbench.datasets.unloaded import unloaded
from clipbench.plugins import registry
from clipbench.plugins.registry import DataProblem

# Options that data sets take beside their own, and sections of such options.
COMMON = ("standardize", "limit", "impute", "resize", "folds", "fold", "augment")
SECTIONS = ("split.", "corrupt.", "read.")
TWICE_SECONDS = 2.0  # what takes longer is not called twice


def load(component: Component) -> Dataset:
    """Return the data that a component names; cached, because every chunk of a cohort needs them."""
    written = stamps(component, registry.of("data", component))
    return _kept(component, component.folder, component.aside, written)  # a user's function may read files beside it


def load_checked(component: Component) -> Dataset:
    """Return the data, after a look whether a function of the user's returns the same at each call."""
    began = time.perf_counter()
    loaded = load(component)
    is_looked_at = registry.of("data", component).source and time.perf_counter() - began < TWICE_SECONDS
    if is_looked_at and read(component).fingerprint != loaded.fingerprint:
        text = "it returns other data at each call. Draw random numbers from torch, numpy or `random`, whose global"
        raise DataProblem(f"{text} generators are seeded before each call, or from a generator with a seed.")
    return loaded


@lru_cache(maxsize=4)
def _kept(component: Component, folder: str, aside: object, written: tuple[tuple[int, int], ...]) -> Dataset:
    return read(component)


def read(component: Component) -> Dataset:
    """Return the data that a component names, without the cache."""
    plugin = registry.of("data", component)
    given = dict((*component.options, *component.aside))
    own = {name: value for name, value in given.items() if name in plugin.options or not _is_common(name)}
    options = {name: value for name, value in given.items() if name not in own}
    own |= {name: whole_path(str(own[name]), component.folder) for name in plugin.files if own.get(name)}
    arguments = {**own, **_facts(component, plugin, options)}
    with generators.preserved():
        generators.seed_all(0)  # a function that draws from them returns the same data in every process
        found = open_stream(plugin, arguments, options) if plugin.is_stream else _fixed(plugin, arguments, options)
    augment = options.get("augment")
    return replace(found, augment=Augmentation(augment, found.outputs)) if isinstance(augment, Component) else found


def _fixed(plugin: registry.Plugin, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> Dataset:
    """Return the data of a function that returns examples, split and preprocessed."""
    how = ReadOptions.of(options)
    found = opened(plugin.function(**arguments), how)
    if is_unloaded(found):
        return unloaded(found, options, how)
    names = _check_tables(found, bool(options.get("impute")))
    parts = parts_of(found, options)
    limit = options.get("limit")
    if isinstance(limit, int):
        parts["train"] = (parts["train"][0][:limit], parts["train"][1][:limit])
    parts = imputed(parts, options.get("impute"))
    for name, (x, y) in parts.items():
        check(name, x, y)
    parts = resized(parts, options.get("resize"))
    parts = corrupted(parts, _section(options, "corrupt."))
    if options.get("standardize"):
        parts = standardized(parts)
    return Dataset(parts["train"], parts.get("val"), parts.get("test"), fingerprint_of(parts), names=names)


def _check_tables(found: Any, imputes: bool) -> tuple[str, ...]:
    """Return the names of the inputs' columns, if they come from tables. Raise an error with every problem of these."""
    given = found.values() if isinstance(found, Mapping) else [found]
    pairs = [pair for pair in given if isinstance(pair, tuple | list) and len(pair) == 2]
    problems = dict.fromkeys(problem for x, y in pairs for problem in frames.problems(x, y, imputes))
    if problems:
        raise DataProblem(*problems)
    return next((frames.names_of(x) for x, _ in pairs if frames.is_table(x)), ())


def _facts(component: Component, plugin: registry.Plugin, options: Mapping[str, Value]) -> dict[str, Any]:
    """Return the arguments that the function asks for by name."""
    shares = {name: options.get(f"split.{name}", 0.2) for name in ("val", "test")}
    facts = {"yaml_folder": component.folder, "shares": shares}
    return {name: fact for name, fact in facts.items() if name in plugin.given}


def _is_common(name: str) -> bool:
    return name in COMMON or name.startswith(SECTIONS)


def _section(options: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    return {name.removeprefix(prefix): value for name, value in options.items() if name.startswith(prefix)}
