"""The options that several commands take, each declared once."""

from __future__ import annotations

import functools
import inspect
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipbench.commands.devices import MOST_WORKERS, Device, ExecutorName
from clipbench.commands.interrupts import uninterrupted
from clipbench.errors import InputError, Place

if TYPE_CHECKING:
    from clipbench.commands.progress import Progress
    from clipbench.commands.session import Settings


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= MOST_WORKERS:
        raise typer.BadParameter(f"expected a number of processes or `auto`, got {text!r}.")
    return int(text)


ExperimentFile = Annotated[Path, typer.Argument(metavar="EXPERIMENT.yaml", help="Experiment file.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Training device; auto picks a GPU if there is one.")]
Workers = Annotated[
    str,
    typer.Option(
        "--workers", metavar="N|auto", callback=_workers, help="Worker processes; auto starts one per core on a CPU."
    ),
]
Executor = Annotated[
    ExecutorName, typer.Option("--executor", help="Where trials are trained: on this machine, or on a Ray cluster.")
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray-address", metavar="ADDRESS", help="Ray cluster; else the one on this machine, or a new one."),
]
CpusPerWorker = Annotated[
    float | None, typer.Option("--cpus-per-worker", metavar="N", help="CPUs of a worker on a Ray cluster: 1.")
]
GpusPerWorker = Annotated[
    float | None, typer.Option("--gpus-per-worker", min=0.0, metavar="N", help="GPUs of a worker on a Ray cluster: 0.")
]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, metavar="N", help="Use the seeds 0 to N-1.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a value of the YAML; can be repeated."),
]
Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="Folder of all results.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        metavar="URI",
        help="MLflow tracking URI; else MLFLOW_TRACKING_URI, else SQLite in the results folder.",
    ),
]
NoMlflow = Annotated[bool, typer.Option("--no-mlflow", help="Do not log to MLflow.")]
Grid = Annotated[bool, typer.Option("--grid", help="Compare the thresholds of the YAML even after a sweep.")]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write event files for TensorBoard into the results folder too.")
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Train a large plan without a question: many trials, hours or gigabytes.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")]


@dataclass(frozen=True)
class TrainingOptions:
    """What the shared options of a command that trains say."""

    settings: Settings
    progress: Progress
    as_json: bool
    quiet: bool


def trains(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of all commands that train; it takes what they say as its parameter `options`."""
    own, shared = (dict(inspect.signature(each, eval_str=True).parameters) for each in (command, _training_options))
    del shared["progress"]

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        with uninterrupted():
            from clipbench import config
            from clipbench.commands.progress import make_progress
            from clipbench.config.script_section import seems_script
            from clipbench.execution.import_server import start_importing

        experiment = given["experiment"] if given.get("source") is None else None  # a pilot may read a log
        start_importing(experiment is not None and seems_script(experiment))
        if experiment is not None:
            config.check_early(experiment, given["sets"] or (), given["seeds"])
        with make_progress(quiet=given["quiet"]) as progress:
            progress.phase("Planning")  # before the imports, which take longer
            options = _training_options(**{name: given.pop(name) for name in shared}, progress=progress)
            command(options=options, **given)

    parameters = [each for each in own.values() if each.name != "options"]
    typed: Any = with_options
    typed.__signature__ = inspect.Signature([*parameters, *shared.values()])
    return with_options


def _training_options(
    *,
    device: DeviceOption = Device.auto,
    workers: Workers = "auto",
    executor: Executor = ExecutorName.local,
    ray_address: RayAddress = None,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    seeds: Seeds = None,
    sets: Sets = None,
    results: Results = Path("results"),
    tracking_uri: TrackingUri = None,
    no_mlflow: NoMlflow = False,
    yes: Yes = False,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Any,
) -> TrainingOptions:
    with uninterrupted():
        from clipbench.commands.cluster import cluster_of
        from clipbench.commands.session import Settings
        from clipbench.tracking.uri import redact

    settings = Settings(
        device=device.value,
        workers=workers,  # type: ignore[arg-type]  # a number or None, by the option's callback
        cluster=cluster_of(executor, ray_address, cpus_per_worker, gpus_per_worker),
        seeds=seeds,
        sets=tuple(sets or ()),
        results=results,
        tracking_uri=tracking_uri,
        mirror=not no_mlflow,
        confirm=(lambda question: None) if yes else _confirm,
        command=redact(shlex.join(["clipbench", *sys.argv[1:]])),
    )
    return TrainingOptions(settings, progress, as_json, quiet)


def _confirm(question: str) -> None:
    """Ask at a terminal whether to go on; without one, say what to type."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InputError.at(Place("large plan"), f"{question}. Nothing was started.", "Add --yes to train it.")
    if not typer.confirm(f"{question[0].upper()}{question[1:]}. Go on?", err=True):
        raise KeyboardInterrupt("Nothing was trained.")
