"""Rules on norms that somebody else logged: which of them need no more than norms, and the norms as recorded steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipbench.core.trial import Component
from clipbench.pilot.results import RecordedSteps
from clipbench.plugins import registry

OF_NORMS = {"n", "model_n", "state", "step"}  # the arguments of a rule that are known


def split(rules: Sequence[Component], of_tensors: bool) -> tuple[list[Component], list[str]]:
    """Return the rules that norms of the model, or of its tensors, are enough for, and the names of the others."""
    enough = [_is_enough(rule, of_tensors) for rule in rules]
    kept = [rule for rule, known in zip(rules, enough, strict=True) if known]
    return kept, [rule.name for rule, known in zip(rules, enough, strict=True) if not known]


def on_norm(rules: Sequence[Component]) -> list[Component]:
    """Return the first rule whose threshold is compared with the norm: the usual one."""
    return [rule for rule in rules if registry.of("strategy", rule).facts["threshold_is_norm"]][:1]


def remember(rules: Sequence[Component]) -> bool:
    """Whether one of the rules has a state."""
    return any(registry.of("strategy", rule).facts["init"] for rule in rules)


def recorded(norms: np.ndarray) -> RecordedSteps:
    """Return the norms of tensors, [steps, tensors], as a rule sees them; all tensors count alike."""
    whole = np.linalg.norm(norms, axis=1, keepdims=True)
    tensors = norms.shape[1]
    places = {"model": dict.fromkeys("nmwv", whole), "tensor": dict.fromkeys("nmwv", norms)}
    # One element as large as the norm stands for all of a gradient that a rule drops or keeps as a whole.
    elements = dict.fromkeys(("g", "old", "new", "row_mean"), whole)
    return RecordedSteps(places, {"model": np.array([tensors]), "tensor": np.ones(tensors, dtype=int)}, elements)


def _is_enough(rule: Component, of_tensors: bool) -> bool:
    plugin = registry.of("strategy", rule)
    if plugin.facts["on"] != "gradient":
        return False
    if plugin.facts["per"] == "element":  # it keeps or drops the whole gradient, by its norm
        return bool(plugin.facts["refuses"]) and plugin.given <= OF_NORMS | {"g"} and "model_n" in plugin.given
    return plugin.given <= OF_NORMS and plugin.facts["per"] in ("model", "step", *(["tensor"] if of_tensors else []))
