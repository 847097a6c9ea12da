"""What commands that train share: their options, training into a store, and the mirror in MLflow beside it."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

from clipbench import __version__, config
from clipbench.analysis.report_model import Report
from clipbench.analysis.subject import Subject
from clipbench.commands import large_plan, mlflow_wait
from clipbench.commands.progress import Progress, duration, training_title
from clipbench.config.frozen_section import frozen_text
from clipbench.config.resolved_yaml import resolved
from clipbench.core import measures
from clipbench.core.experiment_name import ARTIFACTS
from clipbench.core.records import Records
from clipbench.execution import choose_paths
from clipbench.execution.process_output import output_of
from clipbench.execution.protocol import ChoosePruned
from clipbench.execution.ray_workers import RaySettings
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.freeze import content_hash, frozen_of, other_data
from clipbench.planning.needed_memory import refuse_large_cohorts
from clipbench.planning.plan import Chunk, Plan
from clipbench.store import checkpoint_files, path_choices, run_history
from clipbench.store.folder import Store
from clipbench.store.sweep_file import SweepDocument
from clipbench.tracking import tensorboard_files
from clipbench.tracking.active_run import active_run
from clipbench.tracking.invocation import Invocation
from clipbench.tracking.mirror import Mirror
from clipbench.tracking.mirror_state import MirrorState
from clipbench.tracking.mlflow_client import logs_system_metrics
from clipbench.tracking.uri import default_uri, validate_uri

# How long the end of a command waits for MLflow, in seconds: without an answer, and in all.
PATIENCE, TROUBLED_PATIENCE = 60.0, 10.0  # the second where MLflow was already not available
MOST_WAIT, MOST_WAIT_INTERRUPTED = 120.0, 5.0


@dataclass(frozen=True)
class Settings:
    """The options that every command that trains takes."""

    device: str = "auto"
    workers: int | None = None  # None: one per core on a CPU
    cluster: RaySettings | None = None  # whose workers train; None: those of this machine
    seeds: int | None = None
    sets: tuple[str, ...] = ()
    results: Path = Path("results")
    tracking_uri: str | None = None
    mirror: bool = True
    tensorboard: bool = False
    confirm: Callable[[str], None] = lambda question: None  # raises if a large plan is not to be trained
    frozen: bool = False  # train the trials of the YAML as they were trained, or none
    command: str = "clipbench run"

    @property
    def uri(self) -> str:
        if self.tracking_uri:
            return validate_uri(self.tracking_uri)
        if active := active_run():
            return active.uri
        if from_environment := os.environ.get("MLFLOW_TRACKING_URI"):
            return validate_uri(from_environment, "MLFLOW_TRACKING_URI")
        return default_uri(self.results)

    @property
    def artifacts(self) -> Path:
        return self.results / ARTIFACTS


@dataclass(frozen=True)
class Finished:
    """The result of a command that trains or reports."""

    subject: Subject
    report: Report
    folder: Path
    trained: int = 0
    failed: Sequence[str] = ()  # errors of trials that failed, a line each
    device: str = ""
    notes: Sequence[str] = ()  # of the plan
    swept: SweepDocument | None = None  # the search, if there was one


class SearchCallbacks(Protocol):
    """What a search adds to the training of its trials."""

    @property
    def choose_pruned(self) -> ChoosePruned | None:
        """Chooses at the end of epochs the trials to prune; None if nothing is pruned."""

    def tagged(self, records: Records) -> Records:
        """Return the records with the names of the searches that they belong to."""


@dataclass
class Session:
    """One command that trains. Its report can be shown before the mirror has sent everything."""

    settings: Settings
    progress: Progress
    mirror: Mirror | None = field(default=None, init=False)
    folder: Path | None = field(default=None, init=False)  # of the results
    told: str = field(default="", init=False)  # the problem of the mirror that was printed
    trained: int = field(default=0, init=False)
    _failed: Counter[str] = field(default_factory=Counter, init=False)  # number of trials by error
    _outputs: dict[str, Path] = field(default_factory=dict, init=False)  # what a script printed before an error
    _mlflow_notes: set[str] = field(default_factory=set, init=False)
    _engine_notes: set[str] = field(default_factory=set, init=False)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the display, and the mirror of a command that fails or is interrupted, and say how to continue."""
        self.progress.stop()
        if isinstance(error, KeyboardInterrupt):
            self.finish("KILLED")
            kept = checkpoint_files.count(self.folder) if self.folder else 0
            checkpoints = f"{kept} checkpoint{'s' if kept > 1 else ''}"
            begun = f", and training that was under way can go on ({checkpoints})" if kept else ""
            text = f"Interrupted. Finished trials are saved{begun}. To continue: {self.settings.command}"
            raise KeyboardInterrupt(text) from None
        if error:
            self.finish("FAILED")

    @property
    def uri(self) -> str:
        """The MLflow tracking URI, empty without a mirror. Read it early: what is wrong raises before training."""
        if self.settings.mirror:
            logs_system_metrics()
        return self.settings.uri if self.settings.mirror else ""

    @property
    def failed(self) -> list[str]:
        """The errors of trials that failed, a line each."""
        return [
            f"{n} {'trial' if n == 1 else 'trials'} failed: {error}{self._output(error)}"
            for error, n in self._failed.items()
        ]

    def _output(self, error: str) -> str:
        return f" Its output: {self._outputs[error]}." if error in self._outputs else ""

    def begin(self, plan: Plan, store: Store, uri: str, device: str) -> None:
        """Prepare training: write the YAML beside the trials, show the notes of the plan, start the mirror."""
        if self.settings.tensorboard:
            tensorboard_files.check_installed()
        self.folder = store.folder
        store.write_text("experiment.yaml", resolved(plan.experiment))
        for note in plan.notes:
            self.progress.note(note)
        if uri:
            self.mirror = self._start_mirror(plan, store, uri, device)

    def with_timed_choices(self, pool: WorkerPool, plan: Plan, store: Store, device: str) -> Plan:
        """Return the plan with a choice for each cohort whether its trials are trained together; say where not."""
        chosen = choose_paths.with_timed_choices(pool, plan, store, store.done(), device)
        for before, after in zip(plan.cohorts, chosen.cohorts, strict=True):
            if after.loop_reason != before.loop_reason:
                self.progress.note(f"{after.trials[0].model.name}: {after.loop_reason}.")
        return chosen

    def freeze(self, plan: Plan, store: Store, device: str) -> None:
        """Write into the YAML beside the trials what trains them, so that it can be asked for again."""
        frozen = frozen_of(plan, device, path_choices.plain(store), run_history.environment())
        store.write_text("experiment.yaml", resolved(plan.experiment) + frozen_text(frozen))

    def train_missing(self, pool: WorkerPool, plan: Plan, store: Store, device: str, phase: str = "") -> None:
        """Train the trials of a plan that the store does not have."""
        done = store.done()
        for note in (*store.notes, *other_data(plan, store, done)):
            self.progress.note(note)
        chunks = plan.chunks(done, pool.size, device, checkpoint_files.begun(store.folder, done, self.progress.note))
        missing = sum(len(chunk.trials) for chunk in chunks)
        if missing:
            self.record_start(plan, store, missing, device)
        self.progress.start(
            training_title(missing, len(plan.trials) - missing, phase),
            sum(chunk.lane_steps for chunk in chunks),
            missing,
            plan.metric,
            bool(measures.higher_is_better(plan.metric, plan.higher)),
        )
        try:
            self.train(pool, chunks, store, device)
        finally:
            self.progress.stop()

    def check_size(self, plan: Plan, trials: int, trial_steps: int, workers: int) -> None:
        """Refuse what cannot fit into memory, and ask before training what takes long or much of the disk."""
        refuse_large_cohorts(plan)
        if found := large_plan.reasons(trials, trial_steps, workers, self.settings.results):
            self.progress.stop()
            self.settings.confirm(f"this trains {', '.join(found)}")

    def record_start(self, plan: Plan, store: Store, trials: int, device: str) -> None:
        """Add the command to the history of the store, before training, so that it is there however training ends."""
        run_history.add(
            store, run_history.begun(self.settings.command, trials, device, content_hash(plan), git_commit())
        )

    def train(
        self,
        pool: WorkerPool,
        chunks: Sequence[Chunk],
        store: Store,
        device: str,
        search: SearchCallbacks | None = None,
    ) -> None:
        """Train chunks and save their records."""
        choose_pruned = search.choose_pruned if search else None
        for event in pool.train(chunks, device, choose_pruned=choose_pruned, folder=store.folder):
            self.progress.advance(event.lane_steps)
            if event.note:
                self.progress.note(event.note)
            if event.records:
                store.save(search.tagged(event.records) if search else event.records, event.chunk.stem)
                if self.settings.tensorboard:
                    tensorboard_files.write(store.folder, event.records)
                self.trained += len(event.chunk.trials)
                self.progress.add(event.records)
                self._note_engine(event.records)
                checkpoint_files.end(store.folder, event.chunk.stem)
            elif event.error:
                failed = Records.failed(event.chunk.trials, event.error)
                store.save(failed, event.chunk.stem)
                checkpoint_files.end(store.folder, event.chunk.stem)
                self.progress.add(failed)
                self._failed[event.error] += len(event.chunk.trials)
                if event.chunk.is_script:
                    self._outputs.setdefault(event.error, output_of(store.folder, event.chunk.trials[0].id))
            self._tell_of_mlflow()

    def _note_engine(self, records: Records) -> None:
        """Say once why trials are not trained by compiled kernels; of looped models the plan has said it."""
        columns = (records.records.get(name, ()) for name in ("engine", "engine_note"))
        for engine, note in zip(*columns, strict=True):
            if note and engine != "looped" and note not in self._engine_notes:
                self._engine_notes.add(note)
                self.progress.note(f"some steps are not computed by compiled kernels: {note}")

    def _tell_of_mlflow(self) -> None:
        """Say once what is wrong with MLflow, and what was damaged."""
        state = self.mirror.state if self.mirror else MirrorState()
        if state.problem and not self.told:
            self.told = state.problem
            self.progress.note(self.told)
        for note in state.notes:
            if note not in self._mlflow_notes:
                self._mlflow_notes.add(note)
                self.progress.note(note)

    def finish(self, status: str = "FINISHED") -> str | None:
        """Wait until the mirror has sent the rest, for a limited time; return its problem, if any."""
        if not (mirror := self.mirror):
            return None
        if status == "FINISHED":
            # The mirror counts the trials only once it is connected.
            expected = max(mirror.state.pending, self.trained - mirror.state.pushed)
            patience = TROUBLED_PATIENCE if mirror.state.problem else PATIENCE
            title = f"Sending {{}} to MLflow, at most {duration(MOST_WAIT)} (Ctrl-C: send them later)"
            state = mlflow_wait.finish(mirror, self.progress, title, patience, MOST_WAIT, expected)
        else:
            state = mirror.finish(1.0, MOST_WAIT_INTERRUPTED, status)
        self._tell_of_mlflow()
        return state.problem

    def _start_mirror(self, plan: Plan, store: Store, uri: str, device: str) -> Mirror:
        invocation = Invocation(
            command=self.settings.command,
            content_hash=content_hash(plan),
            git_commit=git_commit(),
            version=__version__,
            device=device,
            options=config.flattened(resolved(plan.experiment)),
            within=active.id if (active := active_run()) and active.uri == uri else "",
        )
        return Mirror(store.folder, plan.experiment.name, uri, self.settings.artifacts, invocation)


def git_commit() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()
