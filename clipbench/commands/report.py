"""The command report: compare the trials of an experiment that are in its store, without training."""

from __future__ import annotations

from pathlib import Path

from clipbench import config
from clipbench.analysis import subject_cache
from clipbench.analysis.subject import Subject, subject_of
from clipbench.analysis.subject_cache import Request
from clipbench.commands.session import Finished, Settings, find_experiment, planned, store_of
from clipbench.errors import ClipbenchError, InputError
from clipbench.execution.worker_pool import WorkerPool
from clipbench.reporting.write import publish
from clipbench.store import Store


def report(experiment: str | Path, settings: Settings) -> Finished:
    """Compare what the store of an experiment holds. `experiment` is a file, or the name of one that has run."""
    path = find_experiment(experiment, settings.results)
    subject = _cached_subject(path, settings) or _planned_subject(path, settings)
    store = Store(settings.results / subject.name)
    if not store.folder.is_dir():
        raise ClipbenchError(f"{store.folder}: nothing has been trained yet. Run `clipbench run {experiment}` first.")
    return Finished(subject, publish(subject, store), store.folder)


def _cached_subject(path: Path, settings: Settings) -> Subject | None:
    """The subject of an earlier command, if nothing that it was made from has changed."""
    try:
        store = Store(settings.results / config.name_of(path, settings.sets))
        return subject_cache.find(store, Request.of(path, settings.sets, settings.seeds))
    except InputError:
        return None  # planning reports every mistake


def _planned_subject(path: Path, settings: Settings) -> Subject:
    with WorkerPool(1) as pool:
        plan, _, _ = planned(pool, path, settings)
    subject, store = subject_of(plan), store_of(plan, settings.results)
    if store.folder.is_dir():
        subject_cache.keep_of_plan(store, plan, subject, settings.sets, settings.seeds)
    return subject
