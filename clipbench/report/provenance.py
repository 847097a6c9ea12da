"""How a report came to be, so that it can be made again: file, trials, seeds, device, versions."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata

import pandas as pd

from clipbench.plan import Plan
from clipbench.spec.resolved import resolved
from clipbench.trial import digest

PACKAGES = ("clipbench", "torch", "numpy", "scipy", "pandas")


@dataclass(frozen=True)
class Provenance:
    """What somebody else needs to train the same trials."""

    command: str
    facts: Mapping[str, str] = field(default_factory=dict)
    yaml: str = ""  # the experiment, every default filled in


def of(plan: Plan, records: pd.DataFrame) -> Provenance:
    """The provenance of a plan's trials. Versions are those that wrote the report."""
    experiment = plan.experiment
    facts = {
        "experiment": experiment.name,
        "trials": f"{len(plan.trials)} ({len(experiment.seeds)} seeds: {_seeds(experiment.seeds)})",
        "content hash": digest(sorted(trial.id for trial in plan.trials)),
        "trained on": _used(records, "device"),
        "engine": _used(records, "engine"),
        "versions": ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
    }
    known = {name: text for name, text in facts.items() if text}
    return Provenance(f"clipbench run {experiment.name}.yaml", known, resolved(experiment))


def _seeds(seeds: tuple[int, ...]) -> str:
    if seeds == tuple(range(len(seeds))) and len(seeds) > 1:
        return f"0 to {len(seeds) - 1}"
    return ", ".join(map(str, seeds))


def _used(records: pd.DataFrame, column: str) -> str:
    if column not in records:
        return ""
    return ", ".join(sorted({str(value) for value in records[column].dropna()}))
