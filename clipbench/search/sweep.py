"""A sweep from the experiment file to its report: rounds of searching, then fresh seeds for what was found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from optuna.storages import BaseStorage

from clipbench.analysis.subject import subject_of
from clipbench.commands.progress import StudyProgress
from clipbench.commands.session import Finished, Session, planned, store_of
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.contender import Contender
from clipbench.planning.plan import Plan
from clipbench.reporting.write import publish
from clipbench.search import confirmed_report, samplers_and_pruners, sweep_writer
from clipbench.search.concurrency import heartbeat
from clipbench.search.confirm import Finalist, confirming
from clipbench.search.initial_points import first_points
from clipbench.search.rounds import Round, StudyPoint
from clipbench.search.settings import SearchSettings, search_settings
from clipbench.search.storage import alone, check_url, open_storage, reached
from clipbench.search.study import Study, TriedPoint
from clipbench.store import Store
from clipbench.store.atomic_files import wait_for_lock
from clipbench.store.sweep_file import SweepDocument
from clipbench.tracking.uri import redact

PATIENCE = 1.0  # seconds between two looks at what other processes have under way


@dataclass(frozen=True)
class SweepOptions:
    """What a command says of a search beside the YAML."""

    trials: int | None = None  # points of each contender, in place of the YAML's
    storage: str | None = None  # URL of a database; None: Optuna's journal in the results folder


@dataclass(frozen=True)
class SweepPreview:
    """What a sweep would do."""

    plan: Plan
    search: SearchSettings
    contenders: tuple[Contender, ...]


def preview(session: Session, path: str | Path, asking: SweepOptions) -> SweepPreview:
    """What would be searched; nothing is trained."""
    check_url(asking.storage)
    with WorkerPool(1) as pool:
        plan, _, _ = planned(pool, path, session.settings)
        return SweepPreview(plan, *_prepared(pool, plan, asking))


def sweep(session: Session, path: str | Path, asking: SweepOptions) -> Finished:
    """Search, confirm, report. What an earlier call has done is not done again."""
    settings, uri = session.settings, session.uri
    check_url(asking.storage)
    with WorkerPool(settings.workers) as pool:
        plan, device, pool.size = planned(pool, path, settings)
        search, contenders = _prepared(pool, plan, asking)
        store = store_of(plan, settings.results)
        with store.lock(shared=True), reached(asking.storage):
            storage = open_storage(store.folder, asking.storage)
            course = _Course(session, pool, plan, device, store, search, contenders, storage, asking.storage)
            session.begin(plan, store, uri, device)
            for text in left_out(contenders):
                session.progress.note(text)
            with heartbeat(course.sign_of_life):
                course.search_all()
            final, swept = course.confirm()
    subject = subject_of(final, "sweep")
    confirmed_report.keep(store, plan, subject, settings)
    report = publish(subject, store, swept)
    return Finished(subject, report, store.folder, session.trained, session.failed, device, plan.notes, swept)


def left_out(contenders: Sequence[Contender]) -> list[str]:
    """The arms of the YAML that are outside of what is searched."""
    arms = dict.fromkeys(arm for contender in contenders for arm in contender.left_out)
    return [f"{', '.join(arms)}: outside the search range, not part of the sweep."] if arms else []


def _prepared(pool: WorkerPool, plan: Plan, asking: SweepOptions) -> tuple[SearchSettings, tuple[Contender, ...]]:
    contenders: tuple[Contender, ...] = pool.call("clipbench.planning.find_contenders:contenders", plan)
    search = search_settings(plan, asking.trials)
    for contender in contenders:
        if contender.hyperparameters:
            samplers_and_pruners.check_sampler(
                search.sampler, contender.hyperparameters, plan.experiment.place("sweep.sampler")
            )
    return search, contenders


@dataclass
class _Course:
    """One sweep under way."""

    session: Session
    pool: WorkerPool
    plan: Plan
    device: str
    store: Store
    search: SearchSettings
    contenders: Sequence[Contender]
    storage: BaseStorage
    url: str | None
    stopped: str = field(default="", init=False)  # why it ended before every study had all its points
    _closed: set[str] = field(default_factory=set, init=False)  # studies in which everything fails
    _unfinished: dict[str, int] = field(default_factory=dict, init=False)  # points of each study, when last counted

    @cached_property
    def studies(self) -> list[Study]:
        return [
            Study(contender, self.search, self.storage) for contender in self.contenders if contender.hyperparameters
        ]

    def sign_of_life(self) -> None:
        """For processes on other machines."""
        with reached(self.url):
            for study in self.studies:
                study.sign_of_life()

    def search_all(self) -> None:
        """Rounds until every study has all its points, or the time is over."""
        self._open()
        work = Round(self.session, self.pool, self.plan, self.store, self.device, self.search)
        lane_steps = sum(study.unfinished * work.lane_steps(study) for study in self.studies)
        trials = sum(study.unfinished * len(study.contender.templates) for study in self.studies)
        if not trials:
            return
        trials *= len(self.search.seeds)
        self.session.record_start(self.plan, self.store, trials, self.device)
        self.session.progress.start(lane_steps, trials, 0)
        self._unfinished = {study.name: study.unfinished for study in self.studies}
        self._stand()
        start = time.monotonic()
        try:
            while self._round(work):
                if self.search.timeout and time.monotonic() - start > self.search.timeout:
                    self.stopped = f"timeout of {self.search.timeout:g} s"
                    break
        finally:
            self.session.progress.stop()

    def confirm(self) -> tuple[Plan, SweepDocument]:
        """Train winners and baseline on fresh seeds; of several processes one does, and the others find it done."""
        with wait_for_lock(self.store.folder / ".confirm.lock"):
            final = confirming(self.plan, self.search, self._finalists())
            self.session.train_missing(self.pool, final, self.store, self.device)
            return final, self._keep(confirmed=True)

    def _open(self) -> None:
        """Put the first points of studies that begin in their queues."""
        with self._alone():
            new = [study for study in self.studies if not study.is_opened]
            contenders = [study.contender for study in new]
            seed, progress = self.search.seeds[0], self.session.progress
            first = first_points(self.pool, self.plan, contenders, seed, self.device, progress)
            for study, points in zip(new, first, strict=True):
                study.open(points)

    def _round(self, work: Round) -> bool:
        """Train the next points, or wait for those of others; whether there may be more."""
        with self._alone():
            orphans = [StudyPoint(study, point) for study in self.studies for point in study.take_over()]
            asked = orphans or self._next_points()
        if not asked and any(study.others() for study in self.studies):
            time.sleep(PATIENCE)
            self._count_others(work, ())
            self._stand()
            return True
        if asked:
            self._closed |= work.train(asked, again=bool(orphans))
            self._count_others(work, asked)
            self._keep()
            self._stand()
        return bool(asked)

    def _count_others(self, work: Round, ours: Sequence[StudyPoint]) -> None:
        """What other processes have finished meanwhile is left to nobody."""
        for study in self.studies:
            before, now = self._unfinished[study.name], study.unfinished
            theirs = before - now - sum(each.study is study for each in ours)
            self.session.progress.advance(max(0, theirs) * work.lane_steps(study))
            self._unfinished[study.name] = now

    def _next_points(self) -> list[StudyPoint]:
        """As many of each study, so that whenever time is over each has had as much of it."""
        return [
            StudyPoint(study, point)
            for study in self.studies
            if study.name not in self._closed
            for point in study.ask(self.search.batch)
        ]

    def _alone(self) -> AbstractContextManager[None]:
        return alone(self.store.folder, self.storage)

    def _finalists(self, *, confirmed: bool = False) -> list[Finalist]:
        winners = {id(study.contender): study.winner() for study in self.studies}
        return [_finalist(contender, winners.get(id(contender)), confirmed) for contender in self.contenders]

    def _keep(self, *, confirmed: bool = False) -> SweepDocument:
        where = redact(self.url) if self.url else ""
        return sweep_writer.write(
            self.store, self.search, self._finalists(confirmed=confirmed), self.studies, self.stopped, where
        )

    def _stand(self) -> None:
        self.session.progress.show([_standing(study) for study in self.studies])


def _finalist(contender: Contender, winner: TriedPoint | None, confirmed: bool) -> Finalist:
    if winner is None:
        return Finalist(contender, is_confirmed=confirmed)
    return Finalist(contender, winner.point.number, winner.point.values, confirmed)


def _standing(study: Study) -> StudyProgress:
    tried, winner = study.tried(), study.winner()
    return StudyProgress(
        label=study.contender.label,
        best=", ".join(f"{path}={value}" for path, value in winner.point.values.items()) if winner else "",
        score=winner.outcome.scores[0] if winner and winner.outcome else None,
        tried=sum(each.outcome is not None for each in tried),
        total=study.total,
        pruned=sum(each.state == "pruned" for each in tried),
        diverged=sum(bool(each.outcome and each.outcome.diverged) for each in tried),
    )
