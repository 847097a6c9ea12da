"""The command run: plan an experiment, train the trials that are not done, compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbench.analysis import subject_cache
from clipbench.analysis.subject import subject_of
from clipbench.commands.find_and_plan import planned, store_of
from clipbench.commands.session import Finished, Session, Settings
from clipbench.execution.choose_paths import with_choices
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.freeze import frozen_before
from clipbench.planning.needed_memory import needed_memory, refuse_large_cohorts
from clipbench.planning.plan import Chunk, Cohort, Plan
from clipbench.reporting.write import publish
from clipbench.store import path_choices
from clipbench.store.folder import Store

START_SECONDS = 3.0  # beside training


@dataclass(frozen=True)
class RunPreview:
    """What a run would train, and what it would take."""

    plan: Plan
    done: int
    chunks: Sequence[Chunk]
    workers: int
    device: str
    seconds: float  # NaN for a script of which no trial is done
    bytes: int  # without what a script takes


def run(session: Session, path: str | Path) -> Finished:
    """Train the missing trials of an experiment and write its report."""
    settings, uri = session.settings, session.uri
    with WorkerPool(settings.workers, settings.cluster) as pool:
        plan, device, pool.size = planned(pool, path, settings)
        subject, store = subject_of(plan), store_of(plan, settings.results)
        session.check_size(plan, *plan.missing(store.done()), pool.size)
        with store.lock():
            session.begin(plan, store, uri, device)
            if settings.frozen:
                path_choices.add_plain(store, frozen_before(plan).paths, plan.experiment.place("frozen.paths"))
            plan = session.with_timed_choices(pool, plan, store, device)
            session.freeze(plan, store, device)
            subject_cache.keep_of_plan(store, plan, subject, settings.sets, settings.seeds)
            session.train_missing(pool, plan, store, device)
    session.progress.phase("Writing the report")
    report = publish(subject, store)
    return Finished(subject, report, store.folder, session.trained, session.failed, device, plan.notes)


def preview(path: str | Path, settings: Settings) -> RunPreview:
    """Return what `run` would train, with time and memory estimated from a short timing."""
    with WorkerPool(settings.workers, settings.cluster) as pool:
        plan, device, pool.size = planned(pool, path, settings)
        store = store_of(plan, settings.results)
        refuse_large_cohorts(plan)
        plan, done = with_choices(plan, store, device), store.done()
        chunks = plan.chunks(done, pool.size, device)
        seconds = START_SECONDS
        for cohort in plan.cohorts:
            mine = [chunk for chunk in chunks if chunk.cohort == cohort.id]
            if mine:
                each = _of_script(store, cohort) if cohort.is_script else _timed(pool, mine[0], device)
                seconds += each * sum(chunk.lane_steps for chunk in mine) / min(pool.size, len(mine))
        needed = needed_memory(plan, chunks, pool.size)
    reused = sum(trial.id in done for trial in plan.trials)
    return RunPreview(plan, reused, chunks, pool.size, device, seconds, needed)


def _timed(pool: WorkerPool, chunk: Chunk, device: str) -> float:
    """Return the seconds of a step of a lane, in a short training."""
    given = chunk.trials, device, chunk.lanes, chunk.loop_reason
    return float(pool.call("clipbench.engine:seconds_per_lane_step", *given))


def _of_script(store: Store, cohort: Cohort) -> float:
    """Return the seconds of a unit of progress, as of the trials that are done; NaN if none is."""
    taken = [row["seconds"] for row in store.rows([trial.id for trial in cohort.trials]) if "seconds" in row]
    return sum(taken) / len(taken) / cohort.steps if taken else math.nan
