"""What `sweep.search` searches: paths of options, held against the components that have them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from clipbench.registry import find
from clipbench.spec.axes import Range, Slot, frozen
from clipbench.spec.components import Choice
from clipbench.spec.signatures import signature
from clipbench.spec.values import fit

KINDS = {"optimizer": "optimizer", "clip": "strategy"}  # sections with options that can be searched
PATH = re.compile(r"((optimizer|clip)(?:\[\d{1,6}\])?)\.(.+)")

Space = Range | tuple[Any, ...]


@dataclass(frozen=True)
class Searched:
    """One option of a component that is searched."""

    key: str  # where the YAML says so, as `--set` takes it
    space: Space  # whose values are as the option has them


def searched(choice: Choice, section: str, search: Mapping[str, Space]) -> dict[str, Searched]:
    """The options of one component that `sweep.search` names; a path with an index goes before one without."""
    own = own_options(choice, section)
    found: dict[str, Searched] = {}
    for path, space in sorted(search.items(), key=lambda item: "[" in item[0]):
        where, option = parts(path)
        if where in (section, choice.key) and option in own:
            found[option] = Searched(f'sweep.search."{path}"', fitted(space, own[option]))
    return found


def parts(path: str) -> tuple[str, str]:
    """Of `clip[2].window`, `clip[2]` and `window`; two empty texts if it is no such path."""
    found = PATH.fullmatch(path)
    return (found[1], found[3]) if found else ("", "")


def own_options(choice: Choice, section: str) -> dict[str, Slot]:
    """The options that a component's own function takes, and not those that clipbench adds to its kind."""
    plugin = find(KINDS[section], choice.name, choice.folder)
    slots = {name: slot for name, slot in signature(plugin).items() if name in plugin.options}
    written = dict(choice.axes)
    if plugin.open:
        anything = partial(fit, annotation=Any, infinite=True)
        slots |= {name: Slot(name, anything) for name in written if name not in signature(plugin)}
    # Where other options stand in for a threshold, there is none.
    return {name: slot for name, slot in slots.items() if name != "threshold" or name in written}


def fitted(space: Space, slot: Slot) -> Space:
    """The space with values as the option has them; raises Misfit."""
    if isinstance(space, Range):
        for end in (space.low, space.high):
            slot.fit(end)
        return replace(space, whole=slot.whole)
    return tuple(frozen(slot.fit(value)) for value in _plain(space))


def _plain(space: Iterable[Any]) -> Iterator[Any]:
    """Lists as YAML has them: what is kept has tuples, which annotations refuse."""
    for value in space:
        yield list(_plain(value)) if isinstance(value, tuple | list) else value
