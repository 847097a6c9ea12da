"""The section `frozen` of an `experiment.yaml`: what trained its trials, which `run --frozen` asks for again."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import ValidationError

from clipbench.config.sections import Section
from clipbench.config.yaml_nodes import Node
from clipbench.errors import Findings

KEY = "frozen"


class Frozen(Section):
    """What the numbers of trials depend on beside the options that stand above it in the file."""

    trials: str  # hash of the ids of all trials
    device: str
    data: dict[str, str]  # hashes of their content
    sources: dict[str, str]  # hashes of the files of the user's own functions
    paths: dict[str, Any]  # of large models: whether trials are trained together or one after another
    environment: dict[str, str]  # versions and machine


def read_frozen(node: Node | None, findings: Findings) -> Frozen | None:
    """Return the section; None if there is none or it cannot be read."""
    if node is None:
        return None
    try:
        return Frozen.model_validate(node.plain())
    except ValidationError:
        findings.add(node.place, "is not what `clipbench run` writes.", "Remove the section.")
        return None


def frozen_text(frozen: Frozen) -> str:
    """Return the section as YAML, to be put at the end of an experiment."""
    text = yaml.safe_dump({KEY: frozen.model_dump(mode="json")}, sort_keys=False, allow_unicode=True, width=110)
    return f"# What trained it. `clipbench run --frozen` trains the same trials, or says what differs.\n{text}"
