"""Notes about options that are allowed, but may not do what they seem to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clipbench.config.arm_options import FOLLOWING
from clipbench.config.components import Choice
from clipbench.errors import Findings


def remark(choices: Mapping[str, Sequence[Choice]], rates_move: bool, findings: Findings) -> None:
    """Note schedules that follow a constant learning rate, and thresholds and learning rates of 0."""
    for choice in choices["clip"]:
        following = (one.name for one in choice.values("schedule") if one and one.name in FOLLOWING)
        for name in following if not rates_move else ():
            text = "the learning rate has no schedule, so the threshold stays constant."
            findings.note(f"{choice.key}.schedule: {name}: {text}")
        # What follows the norms that were has no such 0: the 0th percentile is the smallest of them.
        facts = choice.plugin.facts
        if not facts.get("init") and 0.0 in choice.values("threshold"):
            what = facts.get("at_zero", "all gradients become zero")
            findings.note(f"{choice.key}.threshold: threshold 0: {what}.")
    for choice in choices.get("optimizer", ()):
        if 0.0 in choice.values("lr"):
            findings.note(f"{choice.key}.lr: learning rate 0: the weights do not change.")
