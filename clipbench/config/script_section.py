"""The `train` section of an experiment that is a training script: its name, its arguments, and limits of its trials."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from clipbench.config.components import Choice, read_choices
from clipbench.config.yaml_file import read_text
from clipbench.config.yaml_nodes import Node
from clipbench.errors import Findings, InputError

KIND = "script"  # the key that names the script, and the kind of its plug-in
SECTION = "train"
REPLACED = ("data", "model", "optimizer")  # sections that a script has no use for


def is_script(section: Node | None) -> bool:
    """Whether a `train` section names a script."""
    return section is not None and isinstance(section.value, dict) and KIND in section.value


def seems_script(path: str | Path) -> bool:
    """Whether a file seems to be the experiment of a script, before it is read: it only decides what is imported."""
    try:
        return re.search(rf"\b{KIND}[\"']?\s*:", read_text(Path(path))) is not None
    except InputError:  # which is reported when it is read
        return False


def read_script(sections: Mapping[str, Node], folder: str, findings: Findings) -> list[Choice]:
    """Return the scripts of the `train` section with all values of their arguments; usually there is one."""
    for name in REPLACED:
        if name in sections:
            text = f"a script makes its own {name}, so this section has no effect."
            findings.add(sections[name].key_place, text, "Remove it, or remove train.script.")
    options = dict(sections[SECTION].value)
    name = options.pop(KIND)
    node = replace(sections[SECTION], value={"name": _with_function(name), **options})
    found = read_choices(node, KIND, folder, findings)
    for choice in found:
        if "clip" not in choice.plugin.given:
            text = f"{choice.name} does not take `clip`."
            findings.add(name.place, text, "Write def main(clip, seed, ...), and call clip.attach and clip.step in it.")
    return found


def metric_directions(scripts: Sequence[Choice]) -> dict[str, bool]:
    """Return for each metric that `train.metrics` declares whether higher is better."""
    pairs = (pair for script in scripts for value in script.values("metrics") for pair in value)
    return {name: direction == "maximize" for name, direction in pairs}


def _with_function(name: Node) -> Node:
    """Return the name of the script with its function, which is `main` if none is said."""
    if isinstance(name.value, list):
        return replace(name, value=[_with_function(item) for item in name.value])
    ends = isinstance(name.value, str) and name.value.endswith(".py")
    return replace(name, value=f"{name.value}:main") if ends else name
