"""`Clipper`: a clipping rule in a training loop of PyTorch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from clipbench.clipper import after_optimizer
from clipbench.clipper.chosen_arm import chosen_arm
from clipbench.clipper.clip_info import ClipInfo, info_of, nothing_to_clip
from clipbench.clipper.gradient_groups import GradientLists, is_sharded
from clipbench.clipper.list_clip import ListClip
from clipbench.clipper.named_parameters import Parameters, check_names, named_parameters
from clipbench.clipper.rule_memory import extended_memory, initial_memory
from clipbench.clipper.rule_reading import Rule as WrittenRule
from clipbench.clipper.rule_reading import read_rule
from clipbench.clipper.tensor_rows import as_rows, refuse_nonfinite, refuse_sparse
from clipbench.clipper.threshold_course import ThresholdCourse
from clipbench.engine.clipping import lane_order
from clipbench.engine.clipping.clip import change_weights
from clipbench.engine.clipping.measured import Measured
from clipbench.engine.clipping.rule import Memory, Rule
from clipbench.engine.clipping.threshold_groups import threshold_groups
from clipbench.errors import ClipbenchError, InputError, Place, Unsupported


class Clipper:
    """Clips the gradients of parameters in place by one of clipbench's rules, or by a rule of your own.

    Parameters
    ----------
    model
        A module, its `named_parameters()` or its `parameters()`.
    rule
        An arm as the tables of clipbench write it, such as `agc@0.01` or `norm(per=tensor)@0.5`; a mapping as the YAML
        writes it; or a name, with `options`.
    exclude
        Parameters that are not clipped: names of modules or patterns, such as `head` or `*.bias`.
    steps
        The number of steps of the training, for a `schedule` of the threshold.
    measure
        Whether to compute `statistics` at each step.
    options
        The options of the rule, as in the YAML.
    """

    def __init__(
        self,
        model: Parameters,
        rule: WrittenRule,
        *,
        exclude: str | Iterable[str] = (),
        steps: int | None = None,
        measure: bool = False,
        **options: Any,
    ) -> None:
        self.arm = read_rule(rule, options, exclude)
        self.measure = measure
        self._parameters = named_parameters(model)
        self._trained = [name for name, p in self._parameters.items() if p.requires_grad] or [*self._parameters]
        check_names(self.arm, self._trained)
        self._rule = Rule(self.arm)
        self._course = ThresholdCourse(self.arm, self._rule, steps)
        self._error_if_nonfinite = bool(self.arm.as_dict().get("error_if_nonfinite"))
        self._is_off = lane_order.grouping_key(self.arm) == lane_order.OFF
        self._on_weights = self._rule.on_weights and not self._is_off
        self._needs_weights = "w" in self._rule.plugin.given
        # Whether the rule changes weights or updates, and whether it may refuse a step: `commit` must then take it.
        self.acts_after_optimizer = self._on_weights or (lane_order.clips_updates(self.arm) and not self._is_off)
        self.refuses = self._rule.per == "step" and not self._is_off
        self._step = 0  # the number of steps that were clipped
        self._last: ClipInfo | None = None
        self._memory: Memory = {}
        self._clipping = ListClip(self._rule, (), exact=True)
        self._lay_out()

    @classmethod
    def from_report(
        cls,
        path: str | os.PathLike[str],
        model: Parameters,
        strategy: str | None = None,
        *,
        setting: str | None = None,
        exclude: str | Iterable[str] = (),
        steps: int | None = None,
        measure: bool = False,
    ) -> Clipper:
        """Take the arm that a report recommends, or the best threshold of a strategy, from its folder of results.

        `setting` is the label of one of the report's settings, where it has several.
        """
        return cls(model, chosen_arm(path, strategy, setting), exclude=exclude, steps=steps, measure=measure)

    def __repr__(self) -> str:
        return f"Clipper({self.arm.arm})"

    @property
    def needs_history(self) -> bool:
        """Whether a step depends on the steps before it, or on their number."""
        return bool(self._rule.init) or not self._course.is_constant

    def __call__(self, optimizer: Optimizer | None = None) -> ClipInfo:
        """Clip the gradients in place, and return what was done, without waiting for the device.

        A threshold that follows the learning rate is read from the optimizer.
        """
        if self.acts_after_optimizer:
            what = "weights after the" if self._on_weights else "update of the"
            text = f"{self.arm.arm} acts on the {what} optimizer's step."
            raise ClipbenchError(f"{text} Call `clipper.step(optimizer)` in the place of `optimizer.step()`.")
        return self._clip(optimizer)

    def commit(self, optimizer: Optimizer, scaler: GradScaler | None = None) -> ClipInfo:
        """Take the optimizer's step, or leave weights and the optimizer's state as they are if the rule refuses it."""
        if self.acts_after_optimizer:
            return self._step_and_change(optimizer, scaler)
        info, self._last = self._last, None
        if info is None:
            raise ClipbenchError("There is nothing to commit. Call `clipper()` before `clipper.commit(optimizer)`.")
        if not self.refuses or bool(info.keep):
            after_optimizer.take_step(optimizer, scaler)
        return info

    def step(self, optimizer: Optimizer, scaler: GradScaler | None = None, update: bool = True) -> ClipInfo:
        """Clip, and take the optimizer's step: `scaler.unscale_`, `clipper()`, `commit` and `scaler.update`.

        With `update=False`, the scale of `scaler` is left to be updated after the steps of other optimizers.
        """
        after_optimizer.unscale(optimizer, scaler)
        if not self.acts_after_optimizer:
            self._clip(optimizer)
        info = self.commit(optimizer, scaler)
        if scaler is not None and update:
            scaler.update()
        return info

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps, and what the rule remembers."""
        return {
            "rule": self.arm.name,
            "step": self._step,
            "parameters": list(self._trained),
            "memory": {name: value.clone() for name, value in self._memory.items()},
            "course": self._course.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the clipper was whose `state_dict()` this is."""
        place = Place(self.arm.arm)
        if state["rule"] != self.arm.name:
            text = f"a state of {state['rule']} cannot be loaded."
            raise InputError.at(place, text, "Make a clipper with the same rule.")
        if unknown := [name for name in state["parameters"] if name not in self._parameters]:
            text = f"the state is that of other parameters: there is no {unknown[0]}."
            raise InputError.at(place, text, "Make a clipper of the same model.")
        before = self._trained, self._memory
        self._trained, self._memory = list(state["parameters"]), {}
        self._lay_out()
        expected = {name: list(value.shape) for name, value in self._memory.items()}
        if (got := {name: list(value.shape) for name, value in state["memory"].items()}) != expected:
            self._trained, self._memory = before
            self._lay_out()
            text = f"the shapes in the state differ: expected {expected}, got {got}."
            raise InputError.at(place, text, "Make a clipper with the same options.")
        self._memory = {name: value.clone() for name, value in state["memory"].items()}
        self._step, self._last = state["step"], None
        self._course.load_state_dict(state["course"])

    def _lay_out(self) -> None:
        """Group the trained parameters, and make the memory of their places; what is remembered is kept."""
        self._shapes = {name: self._parameters[name].shape for name in self._trained}
        groups = threshold_groups(self.arm, self._trained)
        if self._rule.init and not self._is_off:
            memory = initial_memory(self._rule, self.arm.as_dict(), groups, self._shapes)
            if self._memory:
                memory = extended_memory(self._rule, memory, groups, self._memory, self._clipping.groups, self._shapes)
            self._memory = memory
        self._clipping = ListClip(self._rule, groups, exact=True)
        self._lists: GradientLists | None = None

    def _gradients(self) -> dict[str, Tensor]:
        """Return the gradients by name; parameters that have one only now are trained from now on."""
        found = {name: gradient for name, p in self._parameters.items() if (gradient := p.grad) is not None}
        if found.keys() != self._shapes.keys() and found.keys() - self._shapes.keys():
            self._trained = [name for name in self._parameters if name in self._trained or name in found]
            check_names(self.arm, self._trained)
            self._lay_out()
        return found

    def _lists_for(self, found: Mapping[str, Tensor]) -> GradientLists:
        """Return the lists into which the gradients are put, where the parameters are and of their type."""
        if self._lists is None or not self._lists.fit(self._parameters):
            refuse_sparse(found)
            if self.acts_after_optimizer and is_sharded(self._parameters.values()):
                text = f"{self.arm.arm} acts after the optimizer, which does not work on distributed parameters."
                raise Unsupported(text, "Choose a rule on gradients.")
            groups = () if self._is_off else self._clipping.groups
            self._lists, self._weight_lists = (
                GradientLists(self._shapes, groups, self._rule, self._parameters) for _ in range(2)
            )
            self._memory = {name: value.to(self._lists.like) for name, value in self._memory.items()}
        return self._lists

    def _measured(self, found: Mapping[str, Tensor], lists: GradientLists) -> Measured:
        """Measure the gradients of all trained parameters; where there is none, it is zero."""
        measured = lists.measured(found)
        if self._error_if_nonfinite:
            refuse_nonfinite(measured.norm)
        return measured

    def _weights(self) -> Measured:
        return self._weight_lists.measured({name: self._parameters[name] for name in self._shapes})

    def _rows(self, like: Tensor) -> dict[str, Tensor]:
        """Return the weights as the engine takes them."""
        return as_rows({name: self._parameters[name] for name in self._shapes}, like)

    def _nothing(self) -> ClipInfo:
        return nothing_to_clip(next(iter(self._parameters.values())).device, self.measure)

    @torch.no_grad()
    def _clip(self, optimizer: Optimizer | None) -> ClipInfo:
        found = self._gradients()
        if not found:
            self._last = self._nothing()
            return self._last
        lists = self._lists_for(found)
        measured = self._measured(found, lists)
        if self._is_off:
            info = info_of(measured, None, self.measure)
        else:
            now = self._course.now(self._step, lists.like, optimizer)
            weights = self._weights() if self._needs_weights else measured  # which are not asked for
            if self.measure:
                clipped = self._clipping(measured, weights, now, self._memory)
                self._memory, info = clipped.memory, info_of(measured, clipped, True)
            else:
                done = self._clipping.act(measured, weights, now, self._memory)
                keep = lists.always if done.keep is None else done.keep
                self._memory, info = done.memory, ClipInfo(measured.norm.view(()), done.fired, keep)
        self._step += 1
        self._last = info
        return info

    @torch.no_grad()
    def _step_and_change(self, optimizer: Optimizer, scaler: GradScaler | None) -> ClipInfo:
        """Take the optimizer's step, then change the weights, or what the step has changed of them."""
        found = self._gradients()
        if not found:
            after_optimizer.take_step(optimizer, scaler)
            return self._nothing()
        measured = self._measured(found, self._lists_for(found))
        gradient = info_of(measured, None, self.measure)
        now = self._course.now(self._step, measured.norm, optimizer)
        rates = after_optimizer.learning_rates(optimizer, self._parameters)
        old = {name: w.clone() for name, w in self._rows(measured.norm).items()}
        if not after_optimizer.take_step(optimizer, scaler):
            return gradient
        self._step += 1
        new = self._rows(measured.norm)
        if self._on_weights:
            after, changed, self._memory = change_weights(
                self._rule, self._clipping.groups, new, old, measured.tensors, now, self._memory, exact=True
            )
            info = after_optimizer.info_of_weights(gradient, changed / sum(w.numel() for w in new.values()))
        else:
            after, clipped = after_optimizer.clipped_update(self._clipping, old, new, rates, now, self._memory)
            self._memory, info = clipped.memory, after_optimizer.info_of_update(gradient, clipped)
        for name, w in after.items():
            if w is not new[name]:
                self._parameters[name].copy_(w[0])
        return info
