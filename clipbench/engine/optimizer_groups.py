"""torch.optim on slices of lanes: optimizers that work element by element train stacked models as they train one."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor
from torch.optim import Optimizer

from clipbench.core.trial import Component, Trial
from clipbench.engine.gradients.workspace import Workspace
from clipbench.engine.optimizer_state import Served, is_elementwise
from clipbench.engine.schedule_factor import follow


class Choosy(Protocol):
    """Lanes that may refuse a step, and which of them keep it."""

    lanes: slice

    @property
    def keep(self) -> Tensor: ...


class Chooses(Protocol):
    """The rules of a chunk, as far as optimizers look at them."""

    @property
    def choosy(self) -> Sequence[Choosy]: ...


class Optimizers:
    """One optimizer for each run of lanes that share its options, and one for each lane that may refuse a step."""

    def __init__(self, trials: Sequence[Trial], workspace: Workspace, clipping: Chooses, steps: int) -> None:
        self._of_lanes: list[Served] = []
        choosy = {lane for run in clipping.choosy for lane in range(run.lanes.start, run.lanes.stop)}
        for alone, group in itertools.groupby(range(len(trials)), choosy.__contains__):
            members = list(group)
            for lanes in _singly(members) if alone else _alike(trials, members):
                served = Served(trials[lanes.start].optimizer, workspace, lanes)
                self._of_lanes += [served] * (lanes.stop - lanes.start)
        self._rates = _Rates(trials[0].train.schedule, steps, [served.optimizer for served in self._all()])
        self._arrange(clipping)

    def _all(self) -> list[Served]:
        return list(dict.fromkeys(self._of_lanes))

    def _arrange(self, clipping: Chooses) -> None:
        """Tell those who always step from those who are asked."""
        optimizers = [served.optimizer for served in self._of_lanes]
        self._alone = [(run, optimizers[run.lanes]) for run in clipping.choosy]
        asked = {id(optimizer) for _, alone in self._alone for optimizer in alone}
        self._together = [served.optimizer for served in self._all() if id(served.optimizer) not in asked]

    def rates(self) -> list[float]:
        """The learning rate of every lane at the last step; 1 where an optimizer has none."""
        return [float(served.optimizer.param_groups[0].get("lr", 1.0)) for served in self._of_lanes]

    def step(self) -> None:
        self._rates.advance()
        for optimizer in self._together:
            optimizer.step()
        for run, optimizers in self._alone:
            # A refused step leaves all of an optimizer's state as it was, its step counter too: so it is not called.
            for keep, optimizer in zip(run.keep.tolist(), optimizers, strict=True):
                if keep:
                    optimizer.step()

    @property
    def can_move(self) -> bool:
        """Whether the weights may be laid elsewhere: not if an optimizer of somebody's own remembers where they lie."""
        return not any(served.holds_views() for served in self._all())

    def fewer(self, lanes: Sequence[int], workspace: Workspace, clipping: Chooses) -> Optimizers:
        """The same optimizers for some of their lanes, whose weights now lie in that workspace."""
        other = copy.copy(self)
        other._of_lanes = [self._of_lanes[lane] for lane in lanes]
        for served, group in itertools.groupby(range(len(lanes)), lambda k: other._of_lanes[k]):
            members = list(group)
            served.move(workspace, slice(members[0], members[-1] + 1), [lanes[k] for k in members])
        other._arrange(clipping)
        return other


class _Rates:
    """The learning rates of optimizers that follow a schedule.

    It counts the steps of training: a step that an arm refuses counts too, so that arms of a seed have the same rates.
    """

    def __init__(self, schedule: Component | None, steps: int, optimizers: Sequence[Optimizer]) -> None:
        self._course = follow(schedule, steps)
        self._step, self._factor = 0, 1.0
        groups = [group for optimizer in optimizers for group in optimizer.param_groups] if schedule else []
        if not all("lr" in group for group in groups):
            raise ValueError("the optimizer has no `lr` that a schedule could change")
        self._groups = [(group, group["lr"]) for group in groups]

    def advance(self) -> None:
        if not self._groups:
            return
        factor = self._course(self._step)
        self._step += 1
        if factor != self._factor:
            self._factor = factor
            for group, lr in self._groups:
                group["lr"] = lr * factor


def _alike(trials: Sequence[Trial], lanes: Sequence[int]) -> Iterator[slice]:
    """Runs of lanes that one optimizer can serve."""
    for component, group in itertools.groupby(lanes, lambda lane: trials[lane].optimizer):
        members = list(group)
        if is_elementwise(component):
            yield slice(members[0], members[-1] + 1)
        else:
            yield from _singly(members)


def _singly(lanes: Sequence[int]) -> list[slice]:
    return [slice(lane, lane + 1) for lane in lanes]
