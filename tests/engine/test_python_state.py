"""Snapshots see every change of what can be reached from an object, and no change where there is none."""

from __future__ import annotations

import collections
import functools
import itertools
import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from clipbench.core import generators
from clipbench.engine.model.python_state import changed, differing, snapshot


class Slotted:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 1


def counter():
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    return step


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def write_the_same(module: nn.Module) -> None:
    with torch.no_grad():
        module[0].bias.copy_(module[0].bias.clone())


# What is made, what is done to it, and the path of what has changed.
CHANGES = {
    "a number": (lambda: SimpleNamespace(t=0), lambda it: setattr(it, "t", 1), "t"),
    "a number that is NaN": (lambda: SimpleNamespace(t=float("nan")), lambda it: setattr(it, "t", 1.0), "t"),
    "an integer that becomes real": (lambda: SimpleNamespace(t=1), lambda it: setattr(it, "t", 1.0), "t"),
    "a new attribute": (SimpleNamespace, lambda it: setattr(it, "h", None), "h"),
    "a list": (lambda: SimpleNamespace(past=[]), lambda it: it.past.append(3), "past[0]"),
    "a deque": (lambda: SimpleNamespace(past=collections.deque([1, 2], 2)), lambda it: it.past.append(3), "past[0]"),
    "a mapping": (lambda: SimpleNamespace(of={"a": 1}), lambda it: it.of.update(a=2), "of['a']"),
    "an object within": (lambda: SimpleNamespace(one=Slotted()), lambda it: setattr(it.one, "value", 2), "one.value"),
    "a tensor": (lambda: SimpleNamespace(h=torch.zeros(2)), lambda it: it.h.add_(1), "h"),
    "a tensor of no type of numpy": (
        lambda: SimpleNamespace(h=torch.zeros((), dtype=torch.bfloat16)), lambda it: it.h.add_(1), "h"
    ),
    "a tensor that is written with what it was": (linear, write_the_same, "0.bias"),
    "an array": (lambda: SimpleNamespace(h=np.zeros(2)), lambda it: it.h.__setitem__(0, 1), "h"),
    "a buffer": (linear, lambda it: it(torch.ones(4, 2)), "1.running_mean"),
    "whether a parameter is trained": (linear, lambda it: it[0].bias.requires_grad_(False), "0.bias"),
    "a generator of random": (lambda: SimpleNamespace(draw=random.Random(0)), lambda it: it.draw.random(), "draw"),
    "a generator of numpy": (
        lambda: SimpleNamespace(draw=np.random.default_rng(0)), lambda it: it.draw.random(), "draw"
    ),
    "an old generator of numpy": (
        lambda: SimpleNamespace(draw=np.random.RandomState(0)), lambda it: it.draw.rand(), "draw"
    ),
    "a generator of torch": (
        lambda: SimpleNamespace(draw=torch.Generator().manual_seed(0)),
        lambda it: torch.rand(1, generator=it.draw),
        "draw",
    ),
    "an iterator": (lambda: SimpleNamespace(turns=itertools.cycle([1, 2])), lambda it: next(it.turns), "turns"),
    "a variable of a closure": (lambda: SimpleNamespace(step=counter()), lambda it: it.step(), "step.count"),
    "the object of a method": (lambda: SimpleNamespace(add=[].append), lambda it: it.add(1), "add.__self__[0]"),
    "the argument of a partial": (
        lambda: SimpleNamespace(f=functools.partial(max, [1])), lambda it: it.f.args[0].append(2), "f.args[0][1]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_is_named(name):
    make, change, path = CHANGES[name]
    made = make()
    before = snapshot(made)
    assert changed(before, snapshot(made)) == []
    change(made)
    assert path in changed(before, snapshot(made))


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "a number that is NaN"])
def test_two_that_are_made_in_the_same_way_are_equal(name):
    make, _, _ = CHANGES[name]
    assert differing(snapshot(make()), snapshot(make())) == []


def test_cycles_locks_and_layers_of_torch_are_no_state():
    module = nn.LSTM(2, 3)
    module.me, module.lock = [module], threading.Lock()
    before = snapshot(module)
    with module.lock:
        module(torch.ones(4, 1, 2))
    assert changed(before, snapshot(module)) == []


def test_a_list_may_have_the_name_of_hooks():
    module = linear()
    module.my_hooks = [1]
    before = snapshot(module)
    module.my_hooks.append(2)
    assert any("my_hooks" in place for place in changed(before, snapshot(module)))


def test_an_iterator_whose_position_is_unknown_counts_as_changed():
    made = SimpleNamespace(turns=(n for n in range(3)))
    assert changed(snapshot(made), snapshot(made)) == ["turns"]


def test_all_generators_are_seeded_and_given_back():
    def draw() -> list[float]:
        return [float(torch.rand(())), random.random(), float(np.random.rand())]

    generators.seed_all(-1 - generators.step_number(3, 7))
    first = draw()
    with generators.preserved():
        before = generators.States.now()
        assert before.are_those_of(generators.States.now())
        generators.seed_all(5)
        assert not before.are_those_of(generators.States.now())
        draw()
    following = draw()
    generators.seed_all(-1 - generators.step_number(3, 7))
    assert [draw(), draw()] == [first, following]
