"""What the command check says of one file, found in a worker: functions of the user's may do anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from clipbench import config
from clipbench.cli.experiment_summary import summary, summary_lines, sweep_lines, sweep_values
from clipbench.config import Experiment


@dataclass(frozen=True)
class CheckedFile:
    """A file without mistakes: as lines of text, and as plain values."""

    lines: tuple[str, ...]
    values: dict[str, Any]


def checked(path: str, sets: Sequence[str], seeds: int | None, loads: bool) -> CheckedFile:
    """Read a file, with its data and models if it `loads` them; raise InputError with every mistake."""
    return described(_prepared(path, sets, seeds) if loads else config.load(path, sets, seeds))


def described(experiment: Experiment) -> CheckedFile:
    """Return what is said of an experiment."""
    lines = (*summary_lines(experiment), *sweep_lines(experiment))
    return CheckedFile(lines, {**summary(experiment), "sweep": sweep_values(experiment)})


def _prepared(path: str, sets: Sequence[str], seeds: int | None) -> Experiment:
    """The experiment, with the notes of its plan."""
    import torch

    from clipbench.planning.build import prepare
    from clipbench.planning.needed_memory import refuse_large_cohorts

    torch.set_num_threads(1)  # as in a worker: for models this small, threads wait for one another
    plan = prepare(path, sets, seeds)
    refuse_large_cohorts(plan)
    return replace(plan.experiment, notes=plan.notes)
