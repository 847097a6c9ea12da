"""From an experiment file to its report: plan, subtract what is done, train the rest, compare."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from clipbench import __version__, spec
from clipbench.errors import ClipbenchError, InputError, Problem
from clipbench.executors.local import Local
from clipbench.plan import Chunk, Plan
from clipbench.report.publish import publish
from clipbench.report.subject import Subject, subject_of
from clipbench.report.tables import Report
from clipbench.spec.resolved import resolved
from clipbench.store import Store, runs
from clipbench.tracking import sync
from clipbench.tracking.mirror import Mirror, Outcome
from clipbench.tracking.sync import Invocation, Pushed
from clipbench.tracking.uri import default_uri, validate_uri
from clipbench.trial import Records, digest

# Beside training: what a worker needs for itself, and what a first look at the machine takes.
WORKER_BYTES = 400 * 2**20
START_SECONDS = 3.0


@dataclass(frozen=True)
class Settings:
    """The options that every command that trains takes."""

    device: str = "auto"
    workers: int | None = None  # None: one per core on a CPU
    seeds: int | None = None
    sets: tuple[str, ...] = ()
    results: Path = Path("results")
    tracking_uri: str | None = None
    mirror: bool = True
    command: str = "clipbench run"

    @property
    def uri(self) -> str:
        if self.tracking_uri:
            return validate_uri(self.tracking_uri)
        if from_environment := os.environ.get("MLFLOW_TRACKING_URI"):
            return validate_uri(from_environment, "MLFLOW_TRACKING_URI")
        return default_uri(self.results)

    @property
    def artifacts(self) -> Path:
        return self.results / "mlartifacts"


class Watcher(Protocol):
    """Whoever shows a person how far it is."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def begin(self, lane_steps: int, trials: int, done: int) -> None:
        """Training starts."""

    def advance(self, lane_steps: int) -> None:
        """Some of it is done (or lost again, where a worker died)."""

    def end(self) -> None:
        """Training is over, or was interrupted."""


@dataclass(frozen=True)
class Finished:
    """What a run came to."""

    subject: Subject
    report: Report
    folder: Path
    trained: int = 0
    failed: Sequence[str] = ()  # what went wrong, a line each
    device: str = ""
    notes: Sequence[str] = ()  # of the plan


@dataclass(frozen=True)
class Preview:
    """What a run would do."""

    plan: Plan
    done: int
    chunks: Sequence[Chunk]
    workers: int
    device: str
    seconds: float
    bytes: int


@dataclass
class Session:
    """One run under way. The report can be shown before the mirror has sent everything."""

    settings: Settings
    watcher: Watcher
    mirror: Mirror | None = field(default=None, init=False)
    told: str = field(default="", init=False)  # of the mirror's problems

    def run(self, path: str | Path) -> Finished:
        """Train what is missing of an experiment and write its report."""
        uri = self.settings.uri if self.settings.mirror else ""  # a wrong one is said before anything starts
        with Local(self.settings.workers) as pool:
            plan, device, pool.size = planned(pool, path, self.settings)
            store = store_of(plan, self.settings.results)
            with store.lock():
                store.write_text("experiment.yaml", resolved(plan.experiment))
                for note in plan.notes:
                    self.watcher.note(note)
                if uri:
                    self.mirror = self._start_mirror(plan, store, uri, device)
                trained, failed = self._train(pool, plan, store, device)
        subject = subject_of(plan)
        return Finished(subject, publish(subject, store), store.folder, trained, failed, device, plan.notes)

    def finish(self, status: str = "FINISHED", patience: float = 30.0) -> Outcome | None:
        """Wait until the mirror has sent the rest, as long as it makes progress."""
        return self.mirror.finish(patience, status) if self.mirror else None

    def _train(self, pool: Local, plan: Plan, store: Store, device: str) -> tuple[int, list[str]]:
        done = store.done()
        chunks = plan.chunks(done, pool.size, device)
        trained, failed = 0, Counter[str]()
        missing = sum(len(chunk.trials) for chunk in chunks)
        self.watcher.begin(sum(chunk.lane_steps for chunk in chunks), missing, len(plan.trials) - missing)
        if missing:  # said first, so that it is there however the run ends
            runs.add(store, runs.begun(self.settings.command, missing, device, _content_hash(plan), _git_commit()))
        try:
            for event in pool.train(chunks, device):
                self.watcher.advance(event.lane_steps)
                if event.records:
                    store.save(event.records, event.chunk.stem)
                    trained += len(event.chunk.trials)
                elif event.error:
                    store.save(Records.failed(event.chunk.trials, event.error), event.chunk.stem)
                    failed[event.error] += len(event.chunk.trials)
                if self.mirror and self.mirror.problem and not self.told:
                    self.told = self.mirror.problem
                    self.watcher.note(self.told)
        finally:
            self.watcher.end()
        return trained, [f"{n} {'trial' if n == 1 else 'trials'} failed: {error}" for error, n in failed.items()]

    def _start_mirror(self, plan: Plan, store: Store, uri: str, device: str) -> Mirror:
        metric = plan.metric
        invocation = Invocation(
            command=self.settings.command,
            content_hash=_content_hash(plan),
            git_commit=_git_commit(),
            version=__version__,
            device=device,
            metric=metric,
            higher_is_better=plan.higher.get(metric.partition("/")[2], False),
        )
        return Mirror(store.folder, plan.experiment.name, uri, self.settings.artifacts, invocation)


def preview(path: str | Path, settings: Settings) -> Preview:
    """What `run` would do, how long that takes and how much memory, from a short timing."""
    with Local(settings.workers) as pool:
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
    return Preview(plan, reused, chunks, pool.size, device, seconds, needed)


def report(experiment: str | Path, settings: Settings) -> Finished:
    """The report of what the store holds, without training. `experiment` is a file or the name of a run one."""
    with Local(1) as pool:
        plan, _, _ = planned(pool, find_experiment(experiment, settings.results), settings)
    store = store_of(plan, settings.results)
    if not store.folder.is_dir():
        raise ClipbenchError(f"{store.folder}: nothing is trained yet. Type `clipbench run {experiment}` first.")
    subject = subject_of(plan)
    return Finished(subject, publish(subject, store), store.folder)


def push(experiment: str | Path, settings: Settings) -> tuple[str, Pushed]:
    """Send to MLflow what it lacks of an experiment; its name, and what was sent."""
    folder = settings.results / _name(experiment, settings.results)
    if not folder.is_dir():
        raise ClipbenchError(f"{folder}: nothing is trained yet. Type `clipbench run {experiment}` first.")
    invocation = Invocation(command=settings.command, git_commit=_git_commit(), version=__version__)
    return folder.name, sync.push(folder, folder.name, settings.uri, settings.artifacts, invocation)


def pull(experiment: str | Path, settings: Settings) -> tuple[str, int]:
    """Rebuild a store from MLflow; the experiment's name, and how many trials were not here."""
    name = _name(experiment, settings.results)
    return name, sync.pull(settings.uri, name, settings.results / name)


def _name(experiment: str | Path, results: Path) -> str:
    path = find_experiment(experiment, results)
    return spec.load(path).name if path.is_file() else path.name


def find_experiment(experiment: str | Path, results: Path) -> Path:
    """The file of an experiment that is named by its path, or by its name once it has run."""
    path = Path(experiment)
    ran = results / path.name / "experiment.yaml"
    if path.is_file() or path.suffix or len(path.parts) > 1 or not ran.is_file():
        return path
    return ran


def store_of(plan: Plan, results: Path) -> Store:
    return Store(results / plan.experiment.name)


def planned(pool: Local, path: str | Path, settings: Settings) -> tuple[Plan, str, int]:
    """The plan, the device, and how many workers serve it: a GPU is kept busy by one."""
    device = pool.call("clipbench.devices:choose", settings.device)
    plan: Plan = pool.call("clipbench.prepare:prepare", str(path), settings.sets, settings.seeds)
    float64 = any(trial.train.dtype == "float64" for trial in plan.trials[:1])
    if device == "mps" and float64:
        place = plan.experiment.place("train.dtype")
        raise InputError([Problem(place, "float64 is not there on mps.", "Choose `--device cpu`.")])
    return plan, device, pool.size if device == "cpu" or settings.workers else 1


def _content_hash(plan: Plan) -> str:
    return digest(sorted(trial.id for trial in plan.trials))


def _git_commit() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()
