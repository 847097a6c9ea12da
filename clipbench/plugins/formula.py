"""Formulas of optimizers: what one step does to one parameter, as a function of tensors without state of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from clipbench.plugins.catalogue_file import NamedFunction

if TYPE_CHECKING:
    from torch import Tensor

# The arguments of a formula that are no options.
ARGUMENTS = ("w", "g", "slots", "t")


class Slot(NamedTuple):
    """One tensor of an optimizer's state of a parameter: its number at the start, and whether it is 0-dimensional."""

    start: float
    scalar: bool


@dataclass(frozen=True)
class Formula:
    """The step of an optimizer as `new_w, new_slots = formula(w, g, slots, t, lr, **options)`.

    `w` and `g` are one parameter and its gradient, `t` the number of the step from 1 and `lr` the learning rate at this
    step, both 0-dimensional tensors of the dtype of `w`. Options are Python numbers, also those that say which
    operations there are, so a formula can be traced once and mapped over many models, each with its own `t` and `lr`.
    """

    function: Callable[..., tuple[Tensor, dict[str, Tensor]]] = field(compare=False)
    slots: Mapping[str, float | str] = field(default_factory=dict)  # a number, or the option that gives it
    scalars: Mapping[str, float | str] = field(default_factory=dict)
    only_with: Mapping[str, str] = field(default_factory=dict)

    def __call__(
        self, w: Tensor, g: Tensor, slots: Mapping[str, Tensor], t: Tensor, lr: Tensor, **options: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        result = self.function(w, g, slots, t, lr, **options)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping):
            raise TypeError("its formula must return the new weights and a mapping of the new slots")
        new_w, new = result
        shapes = {"the weights": w.shape} | {f"slot {name}": slot.shape for name, slot in slots.items()}
        found = {"the weights": new_w.shape} | {f"slot {name}": slot.shape for name, slot in new.items()}
        for name in [*shapes, *found]:
            if shapes.get(name) != found.get(name):
                said, expected = (str(tuple(each[name])) if name in each else "nothing" for each in (found, shapes))
                raise TypeError(f"its formula must return {expected} as the shape of {name}, not {said}")
        return new_w, dict(new)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the function by its name, so that what is known of an optimizer is known without importing torch."""
        named = self.function if isinstance(self.function, NamedFunction) else NamedFunction(self.function)
        return Formula, (named, self.slots, self.scalars, self.only_with)

    def slots_with(self, options: Mapping[str, Any]) -> dict[str, Slot]:
        """Return the slots that there are with these options; options that are not given have their default."""
        parameters = inspect.signature(self.function).parameters.items()
        chosen = {name: parameter.default for name, parameter in parameters} | dict(options)
        return {
            name: Slot(float(chosen[start] if isinstance(start, str) else start), name in self.scalars)
            for name, start in {**self.slots, **self.scalars}.items()
            if name not in self.only_with or chosen[self.only_with[name]]
        }

    def start(self, w: Tensor, options: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the slots of a parameter before its first step."""
        slots = self.slots_with(options).items()
        return {name: w.new_full(() if slot.scalar else w.shape, slot.start) for name, slot in slots}
