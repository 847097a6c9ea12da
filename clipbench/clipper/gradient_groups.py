"""Gradients in groups that are clipped on their own, and the rest."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial

import torch
from torch import Tensor

from clipbench.clipper.gradient_list import GradientList
from clipbench.clipper.list_layout import ListLayout
from clipbench.clipper.tensor_rows import common_type
from clipbench.engine.clipping.measured import Measured
from clipbench.engine.clipping.places import Tensors
from clipbench.engine.clipping.rule import Rule
from clipbench.engine.clipping.threshold_groups import ThresholdGroup
from clipbench.errors import Unsupported

Names = tuple[str, ...]


class GradientLists:
    """The lists into which tensors of given shapes are put: one of each group, and one of all others."""

    def __init__(
        self,
        shapes: Mapping[str, torch.Size],
        groups: Sequence[ThresholdGroup],
        rule: Rule,
        parameters: Tensors,
    ) -> None:
        """Statistics are computed where the first of the parameters is, and in float32 or a more precise type."""
        self._first = _kind(parameters)
        self.like = torch.empty(0, device=self._first[0], dtype=common_type(parameters.values()))
        self.always = torch.ones((), dtype=torch.bool, device=self.like.device)
        elsewhere = {name for name, parameter in parameters.items() if parameter.device != self.like.device}
        in_order = rule.per == "element" and bool(rule.init)  # as the memory of its places
        grouped = [group.names for group in groups]
        rest = tuple(name for name in shapes if not any(name in names for names in grouped))
        self._lists: dict[Names, Callable[[Tensors], Measured]] = {}
        for names in [*grouped, rest] if rest else grouped:
            mine = {name: shapes[name] for name in names}
            if is_sharded(parameters.values()):
                self._lists[names] = _sharded(rule, mine, parameters, self.like)
            else:
                layout = ListLayout(mine, self.like, rule.per, in_order, elsewhere)
                self._lists[names] = partial(GradientList, layout)

    def fit(self, parameters: Tensors) -> bool:
        """Whether the parameters are where they were, and of the same type."""
        return _kind(parameters) == self._first

    def measured(self, tensors: Tensors) -> Measured:
        """Return tensors of these names, of which some may be missing."""
        if len(self._lists) == 1:
            (only,) = self._lists.values()
            return only(tensors)
        return GradientGroups(
            {
                names: measured({name: tensors[name] for name in names if name in tensors})
                for names, measured in self._lists.items()
            }
        )


class GradientGroups(Measured):
    """The gradients of a step in several lists, one of which may have what is not clipped."""

    def __init__(self, lists: Mapping[Names, Measured]) -> None:
        self.exact, self._lists = True, lists

    @cached_property
    def tensors(self) -> Tensors:  # type: ignore[override]
        return {name: t for each in self._lists.values() for name, t in each.tensors.items()}

    @property
    def names(self) -> Collection[str]:
        return [name for names in self._lists for name in names]

    @property
    def size(self) -> int:
        return sum(each.size for each in self._lists.values())

    @cached_property
    def norm(self) -> Tensor:
        return _joint_norm(self._lists.values())

    @cached_property
    def maximum(self) -> Tensor:
        maxima = torch.cat([each.norms("model", math.inf) for each in self._lists.values()], dim=1)
        return maxima.amax(1, keepdim=True)

    def norms(self, per: str, p: float) -> Tensor:
        raise NotImplementedError("a rule asks a list of its group")

    def of(self, names: Sequence[str]) -> Measured:
        return self._lists[tuple(names)]

    def rest(self, names: Collection[str]) -> Tensor:
        return _joint_norm(each for mine, each in self._lists.items() if not set(mine) & set(names))[:, 0]

    def merged(self, changed: Tensors) -> Tensors:
        return {}  # they are changed in place


def is_sharded(tensors: Iterable[Tensor]) -> bool:
    """Whether processes have parts of a tensor, which are DTensors."""
    module = sys.modules.get("torch.distributed.tensor")  # importing it takes long, and without it there are none
    return module is not None and any(isinstance(tensor, module.DTensor) for tensor in tensors)


def _sharded(
    rule: Rule, shapes: Mapping[str, torch.Size], parameters: Tensors, like: Tensor
) -> Callable[[Tensors], Measured]:
    from clipbench.clipper.sharded_gradients import ShardedGradients, ShardLayout

    if rule.per == "element" and rule.init:
        text = f"{rule.plugin.name} remembers something of each element, and processes have parts of the parameters."
        raise Unsupported(text, "Choose another rule for distributed parameters.")
    return partial(ShardedGradients, ShardLayout(shapes, parameters, like))


def _kind(parameters: Tensors) -> tuple[torch.device, torch.dtype]:
    first = next(iter(parameters.values()))
    return first.device, first.dtype


def _joint_norm(lists: Iterable[Measured]) -> Tensor:
    norms = torch.cat([each.norm for each in lists], dim=1)
    found: Tensor = torch.linalg.vector_norm(norms, dim=1, keepdim=True)
    return found
