"""An arm as Python code to paste: in plain PyTorch, by clipbench's Clipper, and in other libraries."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter

from clipbench.core.arm_label import ArmLabel
from clipbench.core.trial import AGAINST_LR, FOLLOW_LR, OF_PARTS
from clipbench.plugins import registry
from clipbench.plugins.registry import UNCLIPPED, Plugin

TORCH, CLIPPER, OPTAX = "torch", "clipper", "optax"
TITLES = {
    TORCH: "PyTorch",
    CLIPPER: "clipbench.Clipper",
    "lightning": "Lightning",
    "transformers": "Hugging Face Transformers",
    OPTAX: "Optax",
}
# Without clipping.
NONE = {
    TORCH: ("loss.backward()", "optimizer.step()"),
    CLIPPER: ("loss.backward()", "optimizer.step()"),
    "lightning": ("from lightning.pytorch import Trainer", "", "trainer = Trainer(gradient_clip_val=None)"),
    "transformers": (
        "from transformers import TrainingArguments",
        "",
        'arguments = TrainingArguments(output_dir="output", max_grad_norm=0.0)  # the default is to clip at 1.0',
    ),
    OPTAX: ("# Leave the optimizer as it is.",),
}
# Where `elsewhere` of a rule stands; the rest of the lines is the same for all rules.
OWN = {
    TORCH: ("import torch", "", "loss.backward()", "{}", "optimizer.step()"),
    "lightning": ("from lightning.pytorch import Trainer", "", "trainer = Trainer({})"),
    "transformers": (
        "from transformers import TrainingArguments",
        "",
        'arguments = TrainingArguments(output_dir="output", {})',
    ),
    OPTAX: ("import optax", "", "optimizer = optax.chain({}, optimizer)"),
}
# By clipbench's rules.
ADAPTED = {
    CLIPPER: (
        "import clipbench",
        "",
        "clipper = clipbench.Clipper(model, {})  # once, before training",
        "",
        "loss.backward()",
        "clipper.step(optimizer)  # in the place of optimizer.step()",
    ),
    "lightning": (
        "from lightning.pytorch import Trainer",
        "",
        "from clipbench.adapters import LightningClip",
        "",
        "trainer = Trainer(callbacks=[LightningClip({})])",
    ),
    "transformers": (
        "from transformers import Trainer, TrainingArguments",
        "",
        "from clipbench.adapters import TrainerClip",
        "",
        'arguments = TrainingArguments(output_dir="output", max_grad_norm=0.0)  # the callback clips',
        "trainer = Trainer(model, arguments, train_dataset=data, callbacks=[TrainerClip({})])",
    ),
}
# By clipbench's rules that act on updates or weights, where the library takes the optimizer's steps.
WRAPPED = {
    "lightning": (
        "from clipbench.adapters import ClippedOptimizer",
        "",
        "optimizer = ClippedOptimizer(optimizer, model, {})  # for `configure_optimizers` to return",
    ),
    "transformers": (
        "from transformers import Trainer, TrainingArguments",
        "",
        "from clipbench.adapters import ClippedOptimizer",
        "",
        'arguments = TrainingArguments(output_dir="output", max_grad_norm=0.0)  # the optimizer clips',
        "optimizer = ClippedOptimizer(optimizer, model, {})",
        "trainer = Trainer(model, arguments, train_dataset=data, optimizers=(optimizer, scheduler))",
    ),
}
WHOLE = {"model", "tensor"}  # places where a function of parameters can be called: for all, or for each of them


@dataclass(frozen=True)
class ArmCode:
    """The lines that use an arm in a library; or why there are none, and what to do."""

    library: str
    lines: tuple[str, ...] = ()
    is_adapted: bool = False  # the library has no such rule: clipbench's is used
    why_not: str = ""
    remedy: str = ""

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class CodedArm:
    """An arm by its name, such as `norm(per=tensor)@0.5`, the label of its strategy and its threshold."""

    arm: str
    strategy: str
    threshold: float | None

    @property
    def is_unclipped(self) -> bool:
        return self._label.name == UNCLIPPED or self.arm.endswith("@off")

    def code(self, library: str) -> ArmCode:
        """Return the code for a library."""
        if self.is_unclipped:
            return ArmCode(library, NONE[library])
        if parts := [name for name in OF_PARTS if name in self._label.options]:
            text = f"{self.arm} needs the gradients of parts of a batch ({', '.join(parts)})"
            remedy = "Opacus clips per example and adds noise." if "sample" in self.arm else "Clip each part by itself."
            return ArmCode(library, why_not=f"{text}, which {TITLES[library]} does not have.", remedy=remedy)
        if own := self._own(library):
            return ArmCode(library, tuple(_filled(OWN[library], own)))
        if self._acts_after_step and library in WRAPPED:
            return ArmCode(library, tuple(_filled(WRAPPED[library], self._arguments)), is_adapted=True)
        if library in ADAPTED:
            arguments = self._arguments if library == CLIPPER else json.dumps(self.arm)  # trainers know their steps
            return ArmCode(library, tuple(_filled(ADAPTED[library], arguments)), is_adapted=True)
        text = f"{TITLES[library]} has nothing that does what {self.arm} does."
        return ArmCode(library, why_not=text, remedy=f"`--to {CLIPPER}` has every rule, in PyTorch.")

    @property
    def codes(self) -> list[ArmCode]:
        return [self.code(library) for library in TITLES]

    @cached_property
    def _label(self) -> ArmLabel:
        return ArmLabel.parse(self.strategy)

    @cached_property
    def _plugin(self) -> Plugin | None:
        """The rule, if it is built in."""
        return registry.catalogue("strategy").get(self._label.name)

    @property
    def _acts_after_step(self) -> bool:
        """Whether the rule changes updates or weights, as far as is known of it."""
        return "after" in self._label.options or bool(self._plugin and self._plugin.facts["on"] == "weights")

    @property
    def _arguments(self) -> str:
        """The arguments of a clipper after the model."""
        follows_lr = self._label.options.get("schedule", FOLLOW_LR) in (FOLLOW_LR, AGAINST_LR)
        return json.dumps(self.arm) + ("" if follows_lr else ", steps=steps")

    def _own(self, library: str) -> str:
        """Return what the library has for this rule with these options; empty if it has nothing."""
        template = (self._plugin.facts.get("elsewhere") or {}).get(library) if self._plugin else None
        if not template or self._plugin is None:
            return ""
        options, default = dict(self._label.options), self._plugin.facts["per"]
        per = options.pop("per", default)
        if per != default and (library != TORCH or not {per, default} <= WHOLE):
            return ""
        used = {name for _, name, _, _ in Formatter().parse(template) if name}
        if not options.keys() <= used:
            return ""
        for name in used - options.keys() - {"threshold", "parameters"}:
            template = re.sub(rf", \w+=\{{{name}\}}", "", template)  # the default of the library is the same
        values = {name: 'float("inf")' if value == ".inf" else value for name, value in options.items()}
        if library == TORCH and per == "tensor":
            call = template.format(parameters="[parameter]", threshold=self.threshold, **values)
            return f"for parameter in model.parameters():\n    {call}"
        return template.format(parameters="model.parameters()", threshold=self.threshold, **values)


def _filled(lines: Sequence[str], text: str) -> list[str]:
    return "\n".join(lines).replace("{}", text).split("\n")
