"""From an experiment file to its report: plan, subtract what is done, train the rest, compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbench import __version__, config
from clipbench.analysis import subject_cache
from clipbench.analysis.subject import Subject, subject_of
from clipbench.analysis.subject_cache import Request
from clipbench.commands.session import Finished, Session, Settings, find_experiment, git_commit, planned, store_of
from clipbench.errors import ClipbenchError, InputError
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.plan import Chunk, Plan
from clipbench.reporting.write import publish
from clipbench.store import Store
from clipbench.tracking import sync
from clipbench.tracking.sync import Invocation, Pushed

# Beside training: what a worker needs for itself, and what a first look at the machine takes.
WORKER_BYTES = 400 * 2**20
START_SECONDS = 3.0


@dataclass(frozen=True)
class RunPreview:
    """What a run would do."""

    plan: Plan
    done: int
    chunks: Sequence[Chunk]
    workers: int
    device: str
    seconds: float
    bytes: int


def run(session: Session, path: str | Path) -> Finished:
    """Train what is missing of an experiment and write its report."""
    settings, uri = session.settings, session.uri
    with WorkerPool(settings.workers) as pool:
        plan, device, pool.size = planned(pool, path, settings)
        subject, store = subject_of(plan), store_of(plan, settings.results)
        with store.lock():
            session.begin(plan, store, uri, device)
            keep(store, plan, subject, settings)
            copy = store.folder / "experiment.yaml"
            subject_cache.keep(store, Request.of(copy), plan, subject.read_from(copy))
            session.train_missing(pool, plan, store, device)
    report = publish(subject, store)
    return Finished(subject, report, store.folder, session.trained, session.failed, device, plan.notes)


def preview(path: str | Path, settings: Settings) -> RunPreview:
    """What `run` would do, how long that takes and how much memory, from a short timing."""
    with WorkerPool(settings.workers) as pool:
        plan, device, pool.size = planned(pool, path, settings)
        done = store_of(plan, settings.results).done()
        chunks = plan.chunks(done, pool.size, device)
        seconds = START_SECONDS
        for cohort in plan.cohorts:
            mine = [chunk for chunk in chunks if chunk.cohort == cohort.id]
            if mine:
                each = pool.call("clipbench.engine:seconds_per_lane_step", mine[0].trials, device, mine[0].lanes)
                seconds += each * sum(chunk.lane_steps for chunk in mine) / min(pool.size, len(mine))
        lanes = max((chunk.lanes for chunk in chunks), default=0)
        largest = max((cohort.lane_bytes for cohort in plan.cohorts), default=0)
        needed = pool.size * (WORKER_BYTES + lanes * largest)
    reused = sum(trial.id in done for trial in plan.trials)
    return RunPreview(plan, reused, chunks, pool.size, device, seconds, needed)


def report(experiment: str | Path, settings: Settings) -> Finished:
    """The report of what the store holds, without training. `experiment` is a file or the name of a run one."""
    path = find_experiment(experiment, settings.results)
    subject = _known(path, settings) or _planned_subject(path, settings)
    store = Store(settings.results / subject.name)
    if not store.folder.is_dir():
        raise ClipbenchError(f"{store.folder}: nothing has been trained yet. Run `clipbench run {experiment}` first.")
    return Finished(subject, publish(subject, store), store.folder)


def _known(path: Path, settings: Settings) -> Subject | None:
    """The subject as it was kept, where nothing of what it came from has changed."""
    try:
        store = Store(settings.results / config.name_of(path, settings.sets))
        return subject_cache.find(store, Request.of(path, settings.sets, settings.seeds))
    except InputError:
        return None  # planning finds all that is wrong


def _planned_subject(path: Path, settings: Settings) -> Subject:
    with WorkerPool(1) as pool:
        plan, _, _ = planned(pool, path, settings)
    subject, store = subject_of(plan), store_of(plan, settings.results)
    if store.folder.is_dir():
        keep(store, plan, subject, settings)
    return subject


def keep(store: Store, plan: Plan, subject: Subject, settings: Settings) -> None:
    """Keep what a plan is about, so that the next report of it needs none."""
    experiment = plan.experiment
    subject_cache.keep(store, Request(experiment.path, experiment.text, settings.sets, settings.seeds), plan, subject)


def push(experiment: str | Path, settings: Settings) -> tuple[str, Pushed]:
    """Send to MLflow what it lacks of an experiment; its name, and what was sent."""
    folder = settings.results / _name(experiment, settings.results)
    if not folder.is_dir():
        raise ClipbenchError(f"{folder}: nothing has been trained yet. Run `clipbench run {experiment}` first.")
    invocation = Invocation(command=settings.command, git_commit=git_commit(), version=__version__)
    return folder.name, sync.push(folder, folder.name, settings.uri, settings.artifacts, invocation)


def pull(experiment: str | Path, settings: Settings) -> tuple[str, int]:
    """Rebuild a store from MLflow; the experiment's name, and how many trials were not here."""
    name = _name(experiment, settings.results)
    return name, sync.pull(settings.uri, name, settings.results / name)


def _name(experiment: str | Path, results: Path) -> str:
    path = find_experiment(experiment, results)
    return config.name_of(path) if path.is_file() else path.name
