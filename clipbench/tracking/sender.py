"""The sender: it sends to MLflow the trials and files of a store that MLflow lacks."""

from __future__ import annotations

import re
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from clipbench.core.experiment_name import DATABASE, SQLITE_FILES
from clipbench.core.records import rank
from clipbench.core.trial import digest
from clipbench.store.atomic_files import wait_for_lock
from clipbench.store.folder import COLUMNS, STEM, Store
from clipbench.store.folder_check import check_no_links, leads_out
from clipbench.tracking import report_to_run, trial_to_run
from clipbench.tracking.invocation import Invocation
from clipbench.tracking.mlflow_client import MlflowExperiment, OnAnswer, UploadError, make_tables, nothing
from clipbench.tracking.mlflow_connection import connection
from clipbench.tracking.run_values import DataInput, MlflowRun, RunValues
from clipbench.tracking.sqlite_database import prepare
from clipbench.tracking.trial_to_run import STATUS, TRIAL
from clipbench.tracking.uri import database_file, redact

ORIGIN = "clipbench.origin"  # the store and the machine that a run was sent from
INVOCATION = "clipbench.invocation"
FILES = "clipbench.store.files"  # of a parent run whose files are complete
SEARCH = ("sweep.json", "sweep.journal")  # the points of a search, and Optuna's studies
DOCUMENTS = ("experiment.yaml", "runs.json", *SEARCH, "report.*", "table.*", "search.csv", "figures/*.svg")
PARQUET = ("records", "epochs", "steps", "weights")
FILE = re.compile(rf"(records|epochs|steps)/{STEM.pattern}\.parquet|weights/{STEM.pattern}\.npz")
BATCH = 32  # trials read and sent at a time
PUSH_LOCK = ".push.lock"  # contains the name of the last sender


class Sender:
    """Sends the trials and files of one command to MLflow. Whatever fails can be called again: nothing comes twice."""

    def __init__(
        self,
        folder: Path,
        name: str,
        uri: str,
        artifacts_root: Path,
        invocation: Invocation,
        on_answer: OnAnswer = nothing,
    ) -> None:
        self._store, self._invocation = Store(folder), invocation
        self._name, self._uri = name, uri
        self._origin = digest([socket.gethostname(), str(Path(folder).resolve())])
        self._id = uuid.uuid4().hex
        self._notes: list[str] = []  # what is said of the database
        self._parent: MlflowRun | None = None  # created when there is something to send
        self._monitor: Any = None
        self._data: set[DataInput] = set()  # of the trials sent
        self._known: dict[str, MlflowRun] | None = None  # the run of each trial in MLflow
        self.pushed = self.pending = 0  # trials that MLflow lacked and has now, and that it still lacks
        self._tagged: dict[str, str] = {}  # the tags of the experiment
        self._asked: set[str] = set()  # trials that MLflow lacked when they were asked for
        self._sent: set[str] = set()  # the trials in MLflow, of any sender
        from clipbench.tracking.mlflow_database import open_experiment

        with self._connection():
            is_own = self._prepare_database(artifacts_root)
            name = MlflowExperiment.name_of(uri, invocation.within, on_answer) if invocation.within else name
            self._experiment: MlflowExperiment = open_experiment(
                uri, name, artifacts_root, is_own=is_own and not invocation.within, on_answer=on_answer
            )

    @property
    def notes(self) -> list[str]:
        """What is damaged, of the database and of the store."""
        return [*self._notes, *self._store.notes]

    def _prepare_database(self, artifacts_root: Path) -> bool:
        """Return whether the database is that of the results folder. Only then a damaged one is renamed."""
        if (path := database_file(self._uri)) is None:
            return False
        own = artifacts_root.absolute().with_name(DATABASE)
        is_own = own.parent.resolve() / own.name == path
        if is_own:
            files = [own.with_name(own.name + suffix) for suffix in SQLITE_FILES]
            check_no_links([*files, artifacts_root], own.parent)
        note = prepare(path, make_tables, may_rename=is_own)
        if note:
            self._notes.append(f"{note} `clipbench push NAME` sends other experiments again.")
        return is_own

    def count_pending(self) -> None:
        """Count the trials of the store as it is now that MLflow lacks."""
        self.pending = len(set(self._store.current_rows()) - self._sent)

    def send(self, ids: Collection[str] | None = None, on_trial: Callable[[], None] = nothing) -> int:
        """Send the trials that MLflow lacks, each as a run, and return their number."""
        with self._connection(), wait_for_lock(self._store.folder / PUSH_LOCK):
            known = self._current_runs(ids)
            self._known = None  # queried again if this fails: MLflow may then have an incomplete run
            missing = self._missing(known, ids)
            self._asked.update(missing)
            self._sent = set(known).difference(missing)
            self.pushed, self.pending = len(self._asked & self._sent), len(missing)
            for start in range(0, len(missing), BATCH):
                for trial in self._send_batch(missing[start : start + BATCH], known):
                    self._sent.add(trial)
                    self.pushed, self.pending = self.pushed + 1, self.pending - 1
                    on_trial()
            self._known = known
            return len(missing)

    def monitor(self) -> None:
        """Log what the machine does to the parent run, from now to its end."""
        with self._connection():
            self._monitor = self._experiment.monitor(self._parent_run())

    def close(self, status: str = "FINISHED", on_file: Callable[[], None] = lambda: None) -> tuple[int, str | None]:
        """Send the files that MLflow lacks, and end the parent run. Return their number, and what failed."""
        with self._connection():
            files, problem = self._send_files(on_file)
            if self._experiment.may_have_unknown_runs:
                self._delete_unknown_runs()
            if self._parent:
                self._end(self._parent, status)
            return files, problem

    def _end(self, parent: MlflowRun, status: str) -> None:
        """End the parent run. If nothing went wrong, the report is of its trials, and the run gets its answer."""
        folder = self._store.folder
        if self._monitor:
            self._monitor.finish()
        for data in self._data:
            self._experiment.add(parent, RunValues(data=data))
        answer = report_to_run.answer(folder) if status == "FINISHED" else RunValues()
        self._tag_experiment()
        self._experiment.add(parent, replace(answer, status=status, started=parent.started, ended=_now()))

    def _tag_experiment(self) -> None:
        """Describe the experiment, unless it is the caller's own."""
        tags = report_to_run.experiment_tags(self._store.folder)
        if not self._invocation.within and tags != self._tagged:
            self._experiment.tag(tags)
            self._tagged = tags

    def _current_runs(self, ids: Collection[str] | None) -> dict[str, MlflowRun]:
        """Return the run of each trial in MLflow, queried only if there is something to send or another sender."""
        known = self._known
        if (known is None or self._missing(known, ids)) and (self._has_other_sender() or known is None):
            known = self._query_runs()
        return known

    def _has_other_sender(self) -> bool:
        """Whether another process has sent trials of this folder since: several may search into it."""
        path = self._store.folder / PUSH_LOCK
        with suppress(OSError):
            if path.read_text("utf-8") == self._id:
                return False
            path.write_text(self._id, "utf-8")
        return True

    def _connection(self) -> AbstractContextManager[None]:
        remedy = f"Nothing is lost: `clipbench push {self._name}` sends the rest once MLflow is available."
        return connection(self._uri, remedy)

    def _missing(self, known: dict[str, MlflowRun], ids: Collection[str] | None) -> list[str]:
        """The trials to send, in the order of the store's files, so that a batch reads few of them."""
        wanted = None if ids is None else set(ids)
        rows = sorted(self._store.current_rows().items(), key=lambda item: item[1].stem)
        return [
            trial
            for trial, row in rows
            if (wanted is None or trial in wanted) and (trial not in known or rank(row.status) > _rank(known[trial]))
        ]

    def _query_runs(self) -> dict[str, MlflowRun]:
        """Return the complete runs in MLflow. Delete the incomplete ones that a killed process left."""
        known: dict[str, MlflowRun] = {}
        for run in sorted(self._experiment.runs(TRIAL), key=lambda run: (_rank(run), run.started)):
            trial = run.tags[TRIAL]
            if run.has_ended:
                self._supersede(known.get(trial), run)
                known[trial] = run
            elif self._is_mine(run):
                self._experiment.delete(run)
        return known

    def _delete_unknown_runs(self) -> None:
        """Delete the runs that were created although no answer came: the request was repeated."""
        self._query_runs()
        for run in self._experiment.runs(INVOCATION):
            if run.tags[INVOCATION] == self._id and self._parent and run.id != self._parent.id:
                self._experiment.delete(run)

    def _supersede(self, old: MlflowRun | None, new: MlflowRun) -> None:
        if old and self._is_mine(old):
            self._experiment.add(old, RunValues(tags={"clipbench.superseded": new.id}))
            self._experiment.delete(old)

    def _is_mine(self, run: MlflowRun) -> bool:
        """Whether this folder sent the run. Others may share the experiment: their runs are not deleted."""
        return run.tags.get(ORIGIN) == self._origin

    def _send_batch(self, trials: list[str], known: dict[str, MlflowRun]) -> Iterator[str]:
        stored = self._store.current_rows()
        epochs, steps = (self._store.arrays(name, trials) for name in ("epochs", "steps"))
        parent = {"mlflow.parentRunId": self._parent_run().id, ORIGIN: self._origin}
        runs = []
        for row in self._store.rows(trials):
            trial = row["id"]
            saved = stored[trial].saved // 1_000_000  # ms; the same at every attempt
            values = trial_to_run.run_values(row, epochs.get(trial, {}), steps.get(trial, {}), saved)
            runs.append(replace(values, tags={**parent, **values.tags}))
            self._data |= {values.data} if values.data else set()
        for run in self._experiment.send(runs):
            trial = run.tags[TRIAL]
            self._supersede(known.get(trial), run)
            known[trial] = run
            yield trial

    def _parent_run(self) -> MlflowRun:
        if self._parent is None:
            begun = [run for run in self._experiment.runs(INVOCATION) if not run.has_ended and self._is_mine(run)]
            for run in begun:
                if run.tags[INVOCATION] == self._id:  # created although no answer came
                    self._experiment.delete(run)
                else:
                    self._experiment.add(run, RunValues(status="KILLED", ended=_now()))
            tags = {INVOCATION: self._id, ORIGIN: self._origin, **self._invocation.tags()}
            tags |= {"mlflow.parentRunId": self._invocation.within} if self._invocation.within else {}
            name = time.strftime(f"{self._name} %Y-%m-%d %H:%M:%S")
            self._tag_experiment()
            parent = RunValues(name, _now(), tags=tags, params=self._invocation.params())
            (self._parent,) = self._experiment.send([parent])
        return self._parent

    def _send_files(self, on_file: Callable[[], None]) -> tuple[int, str | None]:
        paths = self._paths()
        try:
            sizes = self._sizes()
            missing = [path for path, size in paths.items() if size not in sizes.get(path, ())]
            if not missing and not self._parent:
                return 0, None
            # Each parent run has the YAML and the report, even if another one has them too.
            wanted = sorted({*missing, *(path for path in paths if not FILE.fullmatch(path))})
            for _ in self._experiment.upload(self._parent_run(), self._store.folder, wanted):
                on_file()
        except UploadError as error:
            return 0, (
                f"MLflow at {redact(self._uri)} has the trials, but files could not be uploaded: {error}. "
                f"They are in {self._store.folder}; `clipbench push {self._name}` tries again."
            )
        self._experiment.add(self._parent_run(), RunValues(tags={FILES: str(len(wanted))}))
        return len(wanted), None

    def _paths(self) -> dict[str, int]:
        """Return the files to send, with their sizes: not those that are damaged, or links out of the folder."""
        folder, unusable = self._store.folder, self._store.unusable
        documents = [path for pattern in DOCUMENTS for path in folder.glob(pattern)]
        tables = [path for table in PARQUET for path in (folder / table).glob("*.*") if path.stem not in unusable]
        paths = {path.relative_to(folder).as_posix(): path for path in (*documents, *tables)}
        return {
            name: path.stat().st_size
            for name, path in sorted(paths.items())
            if (path in documents or FILE.fullmatch(name) or path.stem == COLUMNS) and not leads_out(path, folder)
        }

    def _sizes(self) -> dict[str, set[int]]:
        """Return the sizes of the files that the parent runs already have."""
        sizes: dict[str, set[int]] = {}
        for run in self._experiment.runs(INVOCATION):
            if FILES in run.tags:
                for path, size in self._experiment.files(run).items():
                    sizes.setdefault(path, set()).add(size)
        return sizes


def _rank(run: MlflowRun) -> int:
    return rank(run.tags.get(STATUS, ""))


def _now() -> int:
    return time.time_ns() // 1_000_000
