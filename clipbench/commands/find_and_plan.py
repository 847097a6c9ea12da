"""From what a command names to an experiment's file, its plan, its device and its store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from clipbench import config
from clipbench.commands.session import Settings
from clipbench.config.yaml_file import SUFFIXES, yaml_names
from clipbench.core.experiment_name import name_problem, near_name
from clipbench.errors import InputError, Place, did_you_mean
from clipbench.execution.worker_end import WorkerEndedError
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.freeze import differences, frozen_before, frozen_of, refuse_others
from clipbench.planning.plan import Plan
from clipbench.store import run_history
from clipbench.store.folder import Store


def find_experiment(experiment: str | Path, results: Path) -> Path:
    """Return the file of an experiment, given its path, or its name if it has run."""
    path = Path(experiment)
    ran = results / path.name / "experiment.yaml"
    if path.is_file() or path.suffix in SUFFIXES or len(path.parts) > 1:
        return path
    if ran.is_file() or path.is_dir():
        return ran if ran.is_file() else path
    known = sorted(each.parent.name for each in results.glob("*/experiment.yaml")) + yaml_names(Path())
    remedy = did_you_mean(path.name, known) if known else ""
    raise InputError.at(Place(str(path)), f"neither a file nor an experiment in {results}.", remedy)


def name_of(experiment: str | Path) -> str:
    """Return the name of an experiment, given its file or its name."""
    path = Path(experiment)
    if path.is_file():
        return config.name_of(path)
    if problem := name_problem(path.name):
        raise InputError.at(
            Place(str(experiment)), f"{problem}.", f"Try {near_name(path.name)}." * bool(path.stem.strip("."))
        )
    return path.name


def store_of(plan: Plan, results: Path) -> Store:
    """Return the store of a plan. Two names that differ by case would be one folder on some file systems."""
    name = plan.experiment.name
    names = [each.name for each in results.glob("*")]
    other = next((each for each in names if each.lower() == name.lower()), name)
    if other != name and name not in names:
        text = f"{results / other} differs from the name {name!r} by upper and lower case alone."
        raise InputError.at(plan.experiment.place("name"), text, f"Try {other} to add to it, or {name}-2.")
    return Store(results / name)


@contextmanager
def blamed_on(path: str | Path) -> Iterator[None]:
    """Name the line of a file whose module has ended the worker that imported it."""
    try:
        yield
    except WorkerEndedError as end:
        if not end.imports:
            raise
        text = f"the process that imports {end.imports} {end.text}"
        raise InputError.at(config.place_of_module(path, end.imports), text) from None


def planned(pool: WorkerPool, path: str | Path, settings: Settings) -> tuple[Plan, str, int]:
    """Return the plan, the device and the number of workers: one for each GPU, if not asked for another number."""
    device = _device(pool, settings)
    with blamed_on(path):
        plan: Plan = pool.call("clipbench.planning.build:prepare", str(path), settings.sets, settings.seeds)
    if printed := pool.printed():
        plan = replace(plan, notes=(*plan.notes, printed))
    if settings.frozen:
        before = frozen_before(plan)
        if settings.device == "auto":
            device = pool.call("clipbench.commands.devices:choose", before.device)
        now = frozen_of(plan, device, before.paths, run_history.environment())
        refuse_others(before, now, plan)
        plan = replace(plan, notes=(*plan.notes, *differences(before, now)))
    float64 = any(trial.train.dtype == "float64" for trial in plan.trials[:1])
    if device == "mps" and float64:
        place = plan.experiment.place("train.dtype")
        raise InputError.at(place, "float64 is not available on mps.", "Choose `--device cpu`.")
    if settings.cluster:
        if plan.experiment.is_script:
            text = "trains no scripts yet, only what clipbench trains itself."
            raise InputError.at(Place("--executor ray"), text, "Leave it out to train on this machine.")
        return plan, device, pool.size
    if device == "cpu":
        return plan, device, pool.size if settings.workers else max(1, pool.size // _threads(plan))
    cards, free = pool.call("clipbench.commands.devices:capacity", device)
    workers = settings.workers or cards
    return plan.for_gpu(free // -(-workers // cards)), device, workers


def _device(pool: WorkerPool, settings: Settings) -> str:
    """Return the device to train on: on a cluster, what its workers have."""
    if settings.cluster and settings.device == "auto":
        return "cuda" if settings.cluster.gpus else "cpu"
    if settings.cluster:
        return settings.device
    device: str = pool.call("clipbench.commands.devices:choose", settings.device)
    return device


def _threads(plan: Plan) -> int:
    """Return the number of threads of a trial: one, unless it is a script that asks for more."""
    scripts = [script for script in plan.experiment.scripts if script]
    return max((int(script.as_dict().get("threads", 1)) for script in scripts), default=1)  # type: ignore[arg-type]
