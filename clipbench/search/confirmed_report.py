"""The report of a confirmed sweep, without Optuna, and without planning if nothing has changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipbench import config
from clipbench.analysis import subject_cache
from clipbench.analysis.strategy_ranks import Combined, combine
from clipbench.analysis.subject import Subject, subject_of
from clipbench.analysis.subject_cache import Request
from clipbench.commands import report as grid_report
from clipbench.commands.session import Finished, Settings, find_experiment, planned
from clipbench.errors import InputError
from clipbench.execution.worker_pool import WorkerPool
from clipbench.reporting.write import publish, write_combined, write_pictures
from clipbench.search.confirm import confirmation_plan, confirmed_finalists
from clipbench.search.settings import search_settings
from clipbench.store import Store, sweep_file
from clipbench.store.sweep_file import SweepDocument

COMMAND = "sweep"


def reports(
    experiments: Sequence[str | Path], settings: Settings, *, grid: bool = False, png: bool = False
) -> tuple[list[Finished], Combined, Path | None]:
    """The report of each experiment, all of them together, and the page that compares them if there are several."""
    finished = [report(experiment, settings, grid=grid) for experiment in experiments]
    for each in finished if png else ():
        write_pictures(each.subject, Store(each.folder), each.swept)
    combined = combine([each.report for each in finished])
    return finished, combined, write_combined(combined, settings.results) if len(finished) > 1 else None


def report(experiment: str | Path, settings: Settings, *, grid: bool = False) -> Finished:
    """Report the confirmed sweep of a YAML. Without one, or with `grid`, report the thresholds of the YAML."""
    path = find_experiment(experiment, settings.results)
    found = None if grid else _confirmed(path, settings)
    if found is None:
        return grid_report.report(experiment, settings)
    subject, document, store = found
    return Finished(subject, publish(subject, store, document), store.folder, swept=document)


def _confirmed(path: Path, settings: Settings) -> tuple[Subject, SweepDocument, Store] | None:
    try:
        store = Store(settings.results / config.name_of(path, settings.sets))
    except InputError:
        return None  # planning reports every mistake
    document = sweep_file.read(store.folder / sweep_file.FILE)
    if document is None or not any(contender.confirmed for contender in document.contenders):
        return None
    subject = subject_cache.find(store, Request.of(path, settings.sets, settings.seeds, COMMAND))
    if subject is None or not _is_of(subject, document):
        subject = _planned(path, settings, store, document)
    return (subject, document, store) if subject else None


def _is_of(subject: Subject, document: SweepDocument) -> bool:
    """Whether the cached subject has the winners of the document: a continued search may have found better ones."""
    return all(trial in subject.ids for contender in document.contenders for trial in contender.confirmed)


def _planned(path: Path, settings: Settings, store: Store, document: SweepDocument) -> Subject | None:
    """Return the subject of a new plan, or None if the YAML now asks for another search, or none.

    Then the subject of its grid is cached, so that the report does not plan again.
    """
    with WorkerPool(1) as pool:
        plan, _, _ = planned(pool, path, settings)
        try:
            search, contenders = search_settings(plan), pool.call("clipbench.planning.find_contenders:contenders", plan)
            finalists = confirmed_finalists(search, contenders, document)
        except InputError:
            finalists = None  # nothing to search, or no objective
    if finalists is None:
        subject_cache.keep_of_plan(store, plan, subject_of(plan), settings.sets, settings.seeds)
        return None
    subject = subject_of(confirmation_plan(plan, search, finalists), COMMAND)
    subject_cache.keep_of_plan(store, plan, subject, settings.sets, settings.seeds, COMMAND)
    return subject
