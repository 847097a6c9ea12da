"""The name of an experiment: of its folder under `results/`, and of what MLflow shows."""

from __future__ import annotations

import re
from pathlib import Path

from clipbench.config.values import show
from clipbench.config.yaml_nodes import INVALID, Node
from clipbench.errors import Findings

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
RESERVED = ("mlflow.db", "mlartifacts")  # what `results/` itself holds


def read_name(node: Node | None, path: Path, findings: Findings) -> str:
    """The name that the YAML says, else that of its file."""
    if node is None:
        stem = re.sub(r"[^A-Za-z0-9._-]", "-", path.stem)[:100].lstrip("._-")
        return stem or "experiment"
    if isinstance(node.value, str) and re.fullmatch(NAME, node.value):
        if node.value.lower() not in RESERVED:
            return node.value
        findings.add(node.place, f"the name {show(node.value)} is reserved for MLflow's store.")
    elif node.value is not INVALID:
        text = f"a name must consist of up to 100 letters, digits, `.`, `_` and `-`, got {show(node.plain())}."
        remedy = "Put it in quotes." if isinstance(node.value, int | float) else ""
        findings.add(node.place, text, remedy)
    return ""
