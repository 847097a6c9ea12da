"""Between a store and MLflow: `push` sends what is missing there, `pull` rebuilds a store from it."""

from __future__ import annotations

import re
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from clipbench.core.records import rank
from clipbench.core.trial import digest
from clipbench.errors import ClipbenchError
from clipbench.store.atomic_files import turn
from clipbench.store.folder import STEM, Store
from clipbench.tracking import trial_to_run
from clipbench.tracking.mlflow_client import MlflowExperiment, MlflowRun, UploadError, connection
from clipbench.tracking.trial_to_run import STATUS, TRIAL
from clipbench.tracking.uri import redact

if TYPE_CHECKING:
    from pandas import DataFrame

ORIGIN = "clipbench.origin"  # the store and the machine that a run was sent from
INVOCATION = "clipbench.invocation"
CARRIES = "clipbench.store.files"  # said of a parent run whose files are all there
SEARCH = ("sweep.json", "sweep.journal")  # what was tried, and Optuna's studies, which go on from there
DOCUMENTS = ("experiment.yaml", "runs.json", *SEARCH, "report.*", "table.*", "search.csv", "figures/*.svg")
PULLED = ("experiment.yaml", "runs.json", *SEARCH)  # the report is written anew
PARQUET = ("records", "epochs", "steps", "weights")
FILE = re.compile(rf"(records|epochs|steps)/{STEM.pattern}\.parquet|weights/{STEM.pattern}\.npz")
BATCH = 16  # trials read at a time
PUSH_LOCK = ".push.lock"  # and in it, who sent last

Progress = Callable[[int, int], None]  # how many of how many


@dataclass(frozen=True)
class Invocation:
    """One command that sends trials: what its parent run says about it."""

    command: str
    content_hash: str = ""
    git_commit: str = ""
    version: str = ""
    device: str = ""
    metric: str = ""  # the experiment's main one
    higher_is_better: bool = True

    def tags(self) -> dict[str, str]:
        names = ("command", "content_hash", "git_commit", "version", "device")
        own = {f"clipbench.{name}": redact(getattr(self, name))[: trial_to_run.TAG_LENGTH] for name in names}
        return own | {"mlflow.source.git.commit": self.git_commit}


@dataclass(frozen=True)
class Pushed:
    """What was sent; `problem` says what could not be, though the trials are there."""

    trials: int
    files: int
    problem: str | None = None


def push(
    folder: Path,
    name: str,
    uri: str,
    artifacts_root: Path,
    invocation: Invocation,
    ids: Collection[str] | None = None,
    on_progress: Progress | None = None,
) -> Pushed:
    """Send what MLflow does not have yet."""
    sender = Sender(folder, name, uri, artifacts_root, invocation)
    trials = sender.send(ids, on_progress)
    files, problem = sender.close()
    return Pushed(trials, files, problem)


def pull(uri: str, name: str, folder: Path) -> int:
    """Rebuild a store from an MLflow server, and say how many trials are new here."""
    store = Store(folder)
    with connection(uri, "Start it, then run the same command again."):
        tracker = MlflowExperiment.existing(uri, name)
        carriers = [run for run in reversed(tracker.runs(INVOCATION)) if CARRIES in run.tags]
        if not carriers:
            raise ClipbenchError(
                f"{redact(uri)}: experiment {name!r} has no Parquet files to rebuild a store from. "
                f"MlflowRun `clipbench push {name}` where it was trained."
            )
        with store.lock():
            before = set(store.current_rows())
            for run in carriers:
                _pull_run(tracker, run, store)
    return len(set(store.current_rows()) - before)


class Sender:
    """One invocation's trials and files on their way to MLflow."""

    def __init__(self, folder: Path, name: str, uri: str, artifacts_root: Path, invocation: Invocation) -> None:
        self._store, self._invocation = Store(folder), invocation
        self._name, self._uri = name, uri
        self._origin = digest([socket.gethostname(), str(Path(folder).resolve())])
        self._name_here = uuid.uuid4().hex
        self._parent: MlflowRun | None = None  # made when there is something to send
        self._known: dict[str, MlflowRun] | None = None  # the run of each trial that MLflow has
        self.sent: set[str] = set()  # the trials that MLflow has, whoever sent them
        with self._line():
            self._tracker = MlflowExperiment.at(uri, name, artifacts_root)
            self._tracker.name_metric(invocation.metric, invocation.higher_is_better)

    def send(self, ids: Collection[str] | None = None, on_progress: Progress | None = None) -> int:
        """Send the trials that MLflow lacks, each as one whole run."""
        with self._line(), turn(self._store.folder / PUSH_LOCK):
            known = self._asked_anew(ids)
            self._known = None  # asked anew if this fails: MLflow may have half a run then
            missing = self._missing(known, ids)
            self.sent = set(known).difference(missing)
            for start in range(0, len(missing), BATCH):
                for count, trial in enumerate(self._send_batch(missing[start : start + BATCH], known), start + 1):
                    self.sent.add(trial)
                    if on_progress:
                        on_progress(count, len(missing))
            self._known = known
            return len(missing)

    def close(self, status: str = "FINISHED", on_file: Callable[[], None] = lambda: None) -> tuple[int, str | None]:
        """Send the files that MLflow lacks, and end the parent run. Says what could not be sent."""
        with self._line():
            files, problem = self._send_files(on_file)
            if self._parent:
                self._tracker.end(self._parent, status)
            return files, problem

    def _asked_anew(self, ids: Collection[str] | None) -> dict[str, MlflowRun]:
        """The run of each trial that MLflow has; asked for where it may have changed and that matters."""
        known = self._known
        if (known is None or self._missing(known, ids)) and (self._is_another_here() or known is None):
            known = self._tidy()
        return known

    def _is_another_here(self) -> bool:
        """Whether somebody else has sent trials of this folder since; several may search into it."""
        path = self._store.folder / PUSH_LOCK
        with suppress(OSError):
            if path.read_text("utf-8") == self._name_here:
                return False
            path.write_text(self._name_here, "utf-8")
        return True

    def _line(self) -> AbstractContextManager[None]:
        remedy = f"Nothing is lost: when it is back, `clipbench push {self._name}` sends the rest."
        return connection(self._uri, remedy)

    def _missing(self, known: dict[str, MlflowRun], ids: Collection[str] | None) -> list[str]:
        """In the order of the store's files, so that a batch touches few of them."""
        wanted = None if ids is None else set(ids)
        rows = sorted(self._store.current_rows().items(), key=lambda item: item[1].stem)
        return [
            trial
            for trial, row in rows
            if (wanted is None or trial in wanted) and (trial not in known or rank(row.status) > _rank(known[trial]))
        ]

    def _tidy(self) -> dict[str, MlflowRun]:
        """The whole runs that MLflow has. Halves that a killed process left go."""
        known: dict[str, MlflowRun] = {}
        for run in sorted(self._tracker.runs(TRIAL), key=lambda run: (_rank(run), run.started)):
            trial = run.tags[TRIAL]
            if run.is_over:
                self._supersede(known.get(trial), run)
                known[trial] = run
            elif self._is_mine(run):
                self._tracker.delete(run)
        return known

    def _supersede(self, old: MlflowRun | None, new: MlflowRun) -> None:
        if old and self._is_mine(old):
            self._tracker.tag(old, "clipbench.superseded", new.id)
            self._tracker.delete(old)

    def _is_mine(self, run: MlflowRun) -> bool:
        """Others may share the experiment, and be sending right now: their runs are not ours to delete."""
        return run.tags.get(ORIGIN) == self._origin

    def _send_batch(self, trials: list[str], known: dict[str, MlflowRun]) -> Iterator[str]:
        winners = self._store.current_rows()
        epochs = _by_trial(self._store.epochs(trials))
        steps = _by_trial(self._store.steps(trials))
        for row in self._store.rows(trials):
            trial = row["id"]
            when = winners[trial].saved // 1_000_000  # ms; the same at every try
            run = self._send_trial(row, epochs.get(trial, {}), steps.get(trial, {}), when)
            self._supersede(known.get(trial), run)
            known[trial] = run
            yield trial

    def _send_trial(
        self, row: trial_to_run.Row, epochs: trial_to_run.Series, steps: trial_to_run.Series, when: int
    ) -> MlflowRun:
        """The status comes last: a run that is over is whole."""
        tags = {"mlflow.parentRunId": self._parent_run().id, ORIGIN: self._origin, **trial_to_run.tags(row)}
        started = when - round(1000 * row.get("seconds", 0))
        run = self._tracker.start(trial_to_run.run_name(row), tags, started)
        self._tracker.log(run, trial_to_run.params(row), trial_to_run.metrics(row, epochs, steps), when)
        if data := trial_to_run.dataset(row):
            self._tracker.log_dataset(run, *data)
        # Divergence is a result; its tag and metrics say it.
        self._tracker.end(run, "FAILED" if row["status"] == "failed" else "FINISHED", when)
        return run

    def _parent_run(self) -> MlflowRun:
        if self._parent is None:
            for run in self._tracker.runs(INVOCATION):
                if not run.is_over and self._is_mine(run):
                    self._tracker.end(run, "KILLED")
            tags = {INVOCATION: uuid.uuid4().hex, ORIGIN: self._origin, **self._invocation.tags()}
            self._parent = self._tracker.start(time.strftime(f"{self._name} %Y-%m-%d %H:%M:%S"), tags)
        return self._parent

    def _send_files(self, on_file: Callable[[], None]) -> tuple[int, str | None]:
        paths = self._paths()
        try:
            there = self._sizes()
            missing = [path for path, size in paths.items() if size not in there.get(path, ())]
            if not missing and not self._parent:
                return 0, None
            # Each parent run can be read alone: it has the YAML and the report, whoever else has them.
            wanted = sorted({*missing, *(path for path in paths if not FILE.fullmatch(path))})
            for path in wanted:
                self._tracker.upload(self._parent_run(), self._store.folder, path)
                on_file()
        except UploadError as error:
            return 0, (
                f"MLflow at {redact(self._uri)} has the trials, but takes no files: {error}. "
                f"They are in {self._store.folder}; `clipbench push {self._name}` tries again."
            )
        self._tracker.tag(self._parent_run(), CARRIES, str(len(wanted)))
        return len(wanted), None

    def _paths(self) -> dict[str, int]:
        """What there is to send, with its size."""
        folder = self._store.folder
        found = [path for pattern in DOCUMENTS for path in folder.glob(pattern)]
        found += [path for table in PARQUET for path in (folder / table).glob("*.*")]
        paths = {path.relative_to(folder).as_posix(): path for path in found if path.name[0] != "."}
        return {name: path.stat().st_size for name, path in sorted(paths.items())}

    def _sizes(self) -> dict[str, set[int]]:
        """What the parent runs have already."""
        sizes: dict[str, set[int]] = {}
        for run in self._tracker.runs(INVOCATION):
            if CARRIES in run.tags:
                for path, size in self._tracker.files(run).items():
                    sizes.setdefault(path, set()).add(size)
        return sizes


def _rank(run: MlflowRun) -> int:
    return rank(run.tags.get(STATUS, ""))


def _by_trial(frame: DataFrame) -> dict[str, dict[str, np.ndarray]]:
    return {
        str(trial): {name: group[name].to_numpy() for name in group.columns}
        for trial, group in frame.groupby("id", sort=False)
    }


def _pull_run(tracker: MlflowExperiment, run: MlflowRun, store: Store) -> None:
    """Only files with names of ours are taken: a server's answer is no path to write to."""
    with TemporaryDirectory() as beside:
        for path in tracker.files(run):
            if FILE.fullmatch(path) or path in PULLED:
                tracker.download(run, path, Path(beside))
        store.merge(Store(Path(beside)))
        for document in (Path(beside) / name for name in PULLED):
            if document.exists() and not (store.folder / document.name).exists():
                store.write_text(document.name, document.read_text("utf-8"))
