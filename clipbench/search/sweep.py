"""A sweep from the experiment file to its report: rounds of searching, then fresh seeds for what was found."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipbench.analysis import subject_cache
from clipbench.analysis.subject import subject_of
from clipbench.commands.find_and_plan import planned, store_of
from clipbench.commands.progress import StudyProgress
from clipbench.commands.session import Finished, Session
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.contender import Contender
from clipbench.planning.plan import Plan
from clipbench.reporting.write import publish
from clipbench.search.concurrency import heartbeats, new_owner
from clipbench.search.confirm import confirmation_plan, confirming_ids, finalists
from clipbench.search.initial_points import initial_points
from clipbench.search.rounds import Round
from clipbench.search.samplers_and_pruners import check_sampler
from clipbench.search.settings import SearchSettings, search_settings
from clipbench.search.storage import SweepJournal, storage_at
from clipbench.search.study import Point, Study
from clipbench.search.sweep_description import describe
from clipbench.store import sweep_file
from clipbench.store.atomic_files import wait_for_lock
from clipbench.store.folder import Store
from clipbench.store.sweep_file import SearchedContender, SweepDocument

if TYPE_CHECKING:
    from clipbench.search.database import Database

POLL_SECONDS = 1.0  # between two reads of what other processes have finished


@dataclass(frozen=True)
class SweepOptions:
    """Options of the command line that override or complete the YAML."""

    trials: int | None = None  # total points per contender; None: as in the YAML
    storage: str | None = None  # URL of a database; None: Optuna's journal in the results folder


@dataclass(frozen=True)
class SweepPreview:
    """What a sweep would do."""

    plan: Plan
    search: SearchSettings
    contenders: tuple[Contender, ...]


def preview(session: Session, path: str | Path, options: SweepOptions) -> SweepPreview:
    """Return what a sweep would search, without training."""
    storage_at(options.storage)
    with WorkerPool(1) as pool:
        plan, _, _ = planned(pool, path, session.settings)
        return SweepPreview(plan, *_prepared(pool, plan, options))


def sweep(session: Session, path: str | Path, options: SweepOptions) -> Finished:
    """Search, confirm and report. Continue an earlier sweep of the same search."""
    settings, uri = session.settings, session.uri
    storage = storage_at(options.storage)
    with WorkerPool(settings.workers, settings.cluster) as pool:
        plan, device, pool.size = planned(pool, path, settings)
        search, contenders = _prepared(pool, plan, options)
        store = store_of(plan, settings.results)
        session.check_size(plan, *_most(plan, search, contenders), pool.size)
        opened = storage.open(store.folder, session.progress.note)  # before the lock: a damaged journal needs it alone
        with store.lock(shared=True), storage.connection():
            owner = new_owner()
            studies = [Study(each, search, opened, owner) for each in contenders if each.hyperparameters]
            session.begin(plan, store, uri, device)
            plan = session.with_timed_choices(pool, plan, store, device)
            running = _Sweep(session, pool, plan, device, store, search, contenders, storage, studies)
            for note in notes(contenders):
                session.progress.note(note)
            running.restore()
            with heartbeats(owner, running.send_heartbeats):
                running.search_all()
            final, swept = running.confirm()
    subject = subject_of(final, "sweep")
    subject_cache.keep_of_plan(store, plan, subject, settings.sets, settings.seeds, "sweep")
    session.progress.phase("Writing the report")
    report = publish(subject, store, swept)
    return Finished(subject, report, store.folder, session.trained, session.failed, device, plan.notes, swept)


def notes(contenders: Sequence[Contender]) -> list[str]:
    """Return a note about the arms of the YAML that are outside of what is searched."""
    arms = dict.fromkeys(arm for contender in contenders for arm in contender.left_out)
    return [f"{', '.join(arms)}: outside the search range, not part of the sweep."] if arms else []


def _prepared(pool: WorkerPool, plan: Plan, options: SweepOptions) -> tuple[SearchSettings, tuple[Contender, ...]]:
    contenders: tuple[Contender, ...] = pool.call("clipbench.planning.find_contenders:contenders", plan)
    search = search_settings(plan, options.trials)
    for contender in contenders:
        if contender.hyperparameters:
            check_sampler(search.sampler, contender.hyperparameters, plan.experiment.place("sweep.sampler"))
    return search, contenders


def _most(plan: Plan, search: SearchSettings, contenders: Sequence[Contender]) -> tuple[int, int]:
    """Return the number of trials of a search and its confirmation at most, and of their steps together."""
    searched = sum(bool(contender.hyperparameters) for contender in contenders)
    trials = searched * search.trials * len(search.seeds) + len(contenders) * len(search.confirm_seeds)
    return trials, trials * max((cohort.steps for cohort in plan.cohorts if not cohort.is_script), default=0)


@dataclass
class _Sweep:
    """A running sweep."""

    session: Session
    pool: WorkerPool
    plan: Plan
    device: str
    store: Store
    search: SearchSettings
    contenders: Sequence[Contender]
    storage: SweepJournal | Database
    studies: Sequence[Study]
    stopped: str = field(default="", init=False)  # why the search ended early
    _rounds: int = field(default=0, init=False)  # of points, by this process
    _closed: set[str] = field(default_factory=set, init=False)  # studies whose points all fail
    _unfinished: dict[str, int] = field(default_factory=dict, init=False)  # points of each study, when last counted

    def send_heartbeats(self) -> None:
        """Tell processes on other machines that this one is running."""
        with self.storage.connection():
            for study in self.studies:
                study.send_heartbeat()

    def restore(self) -> None:
        """Give the storage the points that `sweep.json` has and the storage has lost."""
        file = self.store.folder / sweep_file.FILE
        with self._exclusive():
            if said := sweep_file.set_aside_if_damaged(file):
                self.session.progress.note(f"{said}, and is written again from Optuna's storage.")
            known = sweep_file.read(file)
            if known is None or known.storage != sweep_file.without_credentials(self.storage.name):
                return
            points = {each.study: each.points for each in known.contenders}
            if lost := sum(study.restore(points.get(study.name, ())) for study in self.studies):
                text = f"{self.storage.name} lacks {lost} points that {sweep_file.FILE} has"
                self.session.progress.note(
                    f"{text}: they are taken from there, and no trial that is saved is trained again."
                )

    def search_all(self) -> None:
        """Train rounds of points until every study has all its points, or the time is over."""
        self._enqueue_initial_points()
        work = Round(self.session, self.pool, self.plan, self.store, self.device, self.search)
        lane_steps = sum(study.unfinished * work.lane_steps(study) for study in self.studies)
        trials = sum(study.unfinished * len(study.contender.templates) for study in self.studies)
        if not trials:
            return
        trials *= len(self.search.seeds)
        self.session.record_start(self.plan, self.store, trials, self.device)
        self.session.progress.start("Search", lane_steps, trials)
        self._unfinished = {study.name: study.unfinished for study in self.studies}
        self._show_progress(self._document())
        start = time.monotonic()
        try:
            while self._round(work):
                if self.search.timeout and time.monotonic() - start > self.search.timeout:
                    self.stopped = f"timeout of {self.search.timeout:g} s"
                    break
        finally:
            self.session.progress.stop()

    def confirm(self) -> tuple[Plan, SweepDocument]:
        """Train the winners and the baseline on fresh seeds. Other processes wait, and find it done."""
        with wait_for_lock(self.store.folder / ".confirm.lock"):
            document = self._document()
            winners = finalists(self.contenders, document)
            final = confirmation_plan(self.plan, self.search, winners)
            self.session.train_missing(self.pool, final, self.store, self.device, "Confirmation on fresh seeds")
            ids = confirming_ids(winners, self.search)
            contenders = tuple(replace(each, confirmed=ids.get(each.label, ())) for each in document.contenders)
            return final, self._write(replace(document, contenders=contenders))

    def _enqueue_initial_points(self) -> None:
        """Queue the first points of new studies."""
        with self._exclusive():
            new = [study for study in self.studies if not study.has_first_points]
            contenders = [study.contender for study in new]
            seed, progress = self.search.seeds[0], self.session.progress
            first = initial_points(self.pool, self.plan, contenders, seed, self.device, progress)
            for study, points in zip(new, first, strict=True):
                study.set_first(points)

    def _round(self, work: Round) -> bool:
        """Train the next points, or wait for those of other processes. Return whether there may be more."""
        with self._exclusive():
            points = [point for study in self.studies for point in self._next_points(study)]
        if not points and any(study.running_elsewhere() for study in self.studies):
            time.sleep(POLL_SECONDS)
            self._count_others(work, ())
            self._show_progress(self._document())
            return True
        if points:
            self._rounds += 1
            left = max(study.unfinished for study in self.studies)
            last = self._rounds - 1 + math.ceil(left / self.search.batch)
            self.session.progress.rename(f"Search, round {self._rounds} of {last}")
            self._closed |= work.train(points)
            self._count_others(work, points)
            self._show_progress(self._write(self._document()))
        return bool(points)

    def _count_others(self, work: Round, ours: Sequence[Point]) -> None:
        """Advance the progress by the points that other processes have finished."""
        for study in self.studies:
            before, now = self._unfinished[study.name], study.unfinished
            theirs = before - now - sum(each.study is study for each in ours)
            self.session.progress.advance(max(0, theirs) * work.lane_steps(study))
            self._unfinished[study.name] = now

    def _next_points(self, study: Study) -> list[Point]:
        """Return the points of an ended process, or new ones: as many of each study, so that a timeout is fair."""
        points = study.take_over()
        return points or ([] if study.name in self._closed else study.ask(self.search.batch))

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Wait for the lock for asking: two processes that count the missing points ask for too many."""
        with wait_for_lock(self.store.folder / ".ask.lock"), self.storage.exclusive():
            yield

    def _document(self) -> SweepDocument:
        return describe(self.search, self.contenders, self.studies, self.stopped, self.storage.name)

    def _write(self, document: SweepDocument) -> SweepDocument:
        self.store.write_text(sweep_file.FILE, sweep_file.text(document))
        return document

    def _show_progress(self, document: SweepDocument) -> None:
        totals = [study.total for study in self.studies]
        self.session.progress.show([_progress(*each) for each in zip(document.searched, totals, strict=True)])


def _progress(contender: SearchedContender, total: int) -> StudyProgress:
    winner = contender.winning
    return StudyProgress(
        label=contender.label,
        best=", ".join(f"{path}={value}" for path, value in winner.values.items()) if winner else "",
        score=winner.score(0) if winner else None,
        tried=contender.tried,
        total=total,
        pruned=contender.count("pruned"),
        diverged=sum(point.diverged > 0 for point in contender.points),
    )
