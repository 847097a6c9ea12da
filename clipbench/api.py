"""The Python API: what the commands run, sweep and report do, as functions that return data frames."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from clipbench.commands.devices import MOST_WORKERS, Device, ExecutorName
from clipbench.commands.result import Result
from clipbench.errors import InputError, Place

if TYPE_CHECKING:
    from clipbench.commands.session import Finished, Session, Settings

PathLike = str | os.PathLike[str]


def run(
    experiment: PathLike,
    *,
    seeds: SupportsIndex | None = None,
    set: Mapping[str, Any] | None = None,
    device: str = "auto",
    workers: SupportsIndex | str = "auto",
    executor: str = "local",
    ray_address: str | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    results: PathLike = "results",
    tracking_uri: str | None = None,
    mlflow: bool = True,
    tensorboard: bool = False,
    frozen: bool = False,
    quiet: bool = False,
) -> Result:
    """Train the missing trials of an experiment, compare its arms and write its report, as `clipbench run` does.

    Parameters
    ----------
    experiment
        The YAML file.
    seeds
        Number of seeds, in place of those of the YAML.
    set
        Values that replace those of the YAML, by their path: `{"train.epochs": 2}`.
    device
        Training device: auto, cpu, cuda or mps; auto picks a GPU if there is one.
    workers
        Number of worker processes; auto starts one per core on a CPU.
    executor
        Where trials are trained: local, on this machine, or ray, on a Ray cluster.
    ray_address, cpus_per_worker, gpus_per_worker
        The cluster (else the one on this machine, or a new one), and what each worker takes of it: one CPU and no GPU.
    results
        Folder of all results.
    tracking_uri
        MLflow tracking URI; else `MLFLOW_TRACKING_URI`, else SQLite in the results folder.
    mlflow
        Whether to log to MLflow.
    tensorboard
        Whether to write event files for TensorBoard into the results folder.
    frozen
        Whether to train the trials of a results folder's `experiment.yaml` as they were trained, or none.
    quiet
        Whether to print warnings only, and no progress.

    Raises
    ------
    InputError
        If the experiment or an option is wrong; nothing is started.
    ClipbenchError
        If the command fails for another reason.
    """
    from clipbench.commands.run import run as train

    cluster = _cluster(executor, ray_address, cpus_per_worker, gpus_per_worker)
    options = {**_checked(seeds, set, device, workers, results, tracking_uri, mlflow), **cluster}
    if frozen and (seeds is not None or set):
        raise _wrong("frozen", "takes the file as it is, without seeds and set.")
    call = _call("run", [experiment], {**options, "frozen": frozen})
    settings = _settings(call, **options, tensorboard=tensorboard, frozen=frozen)
    return _in_session(settings, quiet, lambda session: train(session, os.fspath(experiment)))


def sweep(
    experiment: PathLike,
    *,
    trials: SupportsIndex | None = None,
    storage: str | None = None,
    seeds: SupportsIndex | None = None,
    set: Mapping[str, Any] | None = None,
    device: str = "auto",
    workers: SupportsIndex | str = "auto",
    executor: str = "local",
    ray_address: str | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    results: PathLike = "results",
    tracking_uri: str | None = None,
    mlflow: bool = True,
    tensorboard: bool = False,
    quiet: bool = False,
) -> Result:
    """Search the best threshold of each arm, confirm it on fresh seeds and compare, as `clipbench sweep` does.

    Parameters
    ----------
    trials
        Total search points per arm, in place of `sweep.trials` of the YAML.
    storage
        URL of a database for Optuna; else a journal file in the results folder.

    The other parameters are those of `run`.
    """
    from clipbench.search.sweep import SweepOptions
    from clipbench.search.sweep import sweep as search

    wanted = SweepOptions(None if trials is None else _count("trials", trials), storage)
    cluster = _cluster(executor, ray_address, cpus_per_worker, gpus_per_worker)
    options = {**_checked(seeds, set, device, workers, results, tracking_uri, mlflow), **cluster}
    call = _call("sweep", [experiment], {"trials": wanted.trials, "storage": storage, **options})
    settings = _settings(call, **options, tensorboard=tensorboard)
    return _in_session(settings, quiet, lambda session: search(session, os.fspath(experiment), wanted))


def report(
    *experiments: PathLike,
    seeds: SupportsIndex | None = None,
    set: Mapping[str, Any] | None = None,
    results: PathLike = "results",
    grid: bool = False,
) -> Result:
    """Compare what was trained, without training, and write the reports, as `clipbench report` does.

    Parameters
    ----------
    experiments
        YAML files, or names of experiments that have run. The tables of several have a column `experiment`.
    grid
        Whether to compare the thresholds of the YAML even after a sweep.

    `seeds`, `set` and `results` are those of `run`.
    """
    from clipbench.search import confirmed_report

    if not experiments:
        raise _wrong("report", "expected at least one experiment, got none.")
    settings = _settings("", **_checked(seeds, set, "auto", "auto", results, None, False))
    with _importing_from_here():
        found, _, _ = confirmed_report.reports([os.fspath(each) for each in experiments], settings, grid=grid)
    return Result(found)


def _in_session(settings: Settings, quiet: bool, work: Callable[[Session], Finished]) -> Result:
    from clipbench.commands.progress import make_progress
    from clipbench.commands.session import Session

    session = Session(settings, make_progress(quiet=quiet))
    with _importing_from_here(), session:
        session.progress.phase("Planning")
        finished = work(session)
        problem = session.finish()
    if problem and problem not in session.told:
        session.progress.note(problem)
    for failure in finished.failed:
        session.progress.note(f"{failure} Call it again to retry.")
    return Result([finished])


@contextmanager
def _importing_from_here() -> Iterator[None]:
    """Find `package.module:function` in the current folder too, as the commands do."""
    folder = os.getcwd()
    is_new = folder not in sys.path
    if is_new:
        sys.path.append(folder)
    try:
        yield
    finally:
        if is_new:
            sys.path.remove(folder)


def _checked(
    seeds: SupportsIndex | None,
    sets: Mapping[str, Any] | None,
    device: str,
    workers: SupportsIndex | str,
    results: PathLike,
    tracking_uri: str | None,
    mlflow: bool,
) -> dict[str, Any]:
    """The options by their names, once each is known to have the right type."""
    if device not in list(Device):
        raise _wrong("device", f"expected one of {', '.join(Device)}, got {device!r}.")
    if sets is not None and not (isinstance(sets, Mapping) and all(isinstance(path, str) for path in sets)):
        raise _wrong("set", f"expected a mapping, got {sets!r}.", 'Write {"train.epochs": 2}.')
    from clipbench.config.overrides import plain

    return {
        "seeds": None if seeds is None else _count("seeds", seeds),
        "set": plain(sets or {}),
        "device": str(device),
        "workers": workers if workers == "auto" else _count("workers", workers, MOST_WORKERS),
        "results": os.fspath(results),
        "tracking_uri": tracking_uri,
        "mlflow": mlflow,
    }


def _cluster(executor: str, address: str | None, cpus: float | None, gpus: float | None) -> dict[str, Any]:
    if executor not in list(ExecutorName):
        raise _wrong("executor", f"expected one of {', '.join(ExecutorName)}, got {executor!r}.")
    return {"executor": str(executor), "ray_address": address, "cpus_per_worker": cpus, "gpus_per_worker": gpus}


def _settings(call: str, **options: Any) -> Settings:
    from clipbench.commands.cluster import cluster_of
    from clipbench.commands.session import Settings
    from clipbench.config.overrides import override

    places = [options.get(name) for name in ("ray_address", "cpus_per_worker", "gpus_per_worker")]
    return Settings(
        device=options["device"],
        workers=None if options["workers"] == "auto" else options["workers"],
        cluster=cluster_of(options.get("executor", "local"), *places),
        seeds=options["seeds"],
        sets=tuple(override(path, value) for path, value in options["set"].items()),
        results=Path(options["results"]),
        tracking_uri=options["tracking_uri"],
        mirror=options["mlflow"],
        tensorboard=options.get("tensorboard", False),
        frozen=options.get("frozen", False),
        command=call,
    )


def _call(function: str, experiments: Sequence[PathLike], options: Mapping[str, Any]) -> str:
    """The call as a user types it, for the history of the results and for MLflow."""
    from clipbench.tracking.uri import redact

    usual: dict[str, Any] = {"set": {}, "device": "auto", "workers": "auto", "executor": "local", "results": "results"}
    usual |= {"mlflow": True, "frozen": False}
    given = [f"{name}={value!r}" for name, value in options.items() if value != usual.get(name)]
    return redact(f"clipbench.{function}({', '.join([*(repr(os.fspath(each)) for each in experiments), *given])})")


def _count(name: str, value: Any, most: int | None = None) -> int:
    bounds = f"from 1 to {most}" if most else "of at least 1"
    try:
        count = operator.index(value)  # numpy's integers too
    except TypeError:
        count = 0
    if isinstance(value, bool) or count < 1 or (most and count > most):
        raise _wrong(name, f"expected an integer {bounds}, got {value!r}.")
    return count


def _wrong(option: str, text: str, remedy: str = "") -> InputError:
    return InputError.at(Place(option), text, remedy)
