"""From a data component to its parts: loaded, split, cut, standardized, checked and known by their content."""

from __future__ import annotations

from functools import lru_cache

from clipbench import registry
from clipbench.dataset.examples import Dataset, check, fingerprint_of
from clipbench.dataset.partition import parts_of
from clipbench.dataset.scaling import standardized
from clipbench.dataset.stream import open_stream
from clipbench.trial import Component

# Options that data sets take beside their own.
COMMON = ("split.val", "split.test", "split.seed", "standardize", "limit")


def load(component: Component) -> Dataset:
    """The data that a component names; kept, since every chunk of a cohort asks for them again."""
    return _kept(component, component.folder)  # a user's function may read files beside it


@lru_cache(maxsize=4)
def _kept(component: Component, folder: str) -> Dataset:
    return read(component)


def read(component: Component) -> Dataset:
    """The same, made anew."""
    options = component.as_dict()
    plugin = registry.of("data", component)
    own = {name: value for name, value in options.items() if name not in COMMON}
    if plugin.is_stream:
        return open_stream(plugin, own, options)
    parts = parts_of(plugin.function(**own), options)
    limit = options.get("limit")
    if isinstance(limit, int):
        parts["train"] = (parts["train"][0][:limit], parts["train"][1][:limit])
    for name, (x, y) in parts.items():
        check(name, x, y)
    if options.get("standardize"):
        parts = standardized(parts)
    return Dataset(parts["train"], parts.get("val"), parts.get("test"), fingerprint_of(parts))
