"""The command report: compare what a store holds, without Optuna, and without planning if nothing has changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from clipbench import config
from clipbench.analysis import subject_cache
from clipbench.analysis.strategy_ranks import Combined, combine
from clipbench.analysis.subject import Subject, subject_of
from clipbench.analysis.subject_cache import Request
from clipbench.commands.find_and_plan import find_experiment, planned, store_of
from clipbench.commands.session import Finished, Settings
from clipbench.errors import ClipbenchError, InputError, Place
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.plan import Plan
from clipbench.reporting.write import publish, write_combined, write_pictures
from clipbench.search.confirm import confirmation_plan, confirmed_finalists
from clipbench.search.settings import search_settings
from clipbench.search.storage import JOURNAL
from clipbench.store import sweep_file
from clipbench.store.folder import Store
from clipbench.store.folder_check import check_folder, check_links
from clipbench.store.sweep_file import SweepDocument

RUN, SWEEP = "run", "sweep"


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
    """Report the confirmed sweep of an experiment. Without one, or with `grid`, report the thresholds of the YAML.

    `experiment` is a file, or the name or the results folder of an experiment that has run.
    """
    subject, store, swept = find_study(experiment, settings, grid=grid)
    check_folder(store.folder)
    published = publish(subject, store, swept)
    return Finished(subject, published, store.folder, swept=swept, notes=tuple(store.notes))


def find_study(
    experiment: str | Path, settings: Settings, *, grid: bool = False
) -> tuple[Subject, Store, SweepDocument | None]:
    """Return the subject of an experiment, its store, and the confirmed search if that is what is compared."""
    folder = Path(experiment)
    if (path := folder / "experiment.yaml").is_file():
        settings = replace(settings, results=Path(os.path.normpath(folder / "..")))
    else:
        path = find_experiment(experiment, settings.results)
    notes = [] if grid else list(_restored(path, settings))
    subject, swept = _cached(path, settings, grid=grid) or _planned(path, settings, grid=grid)
    store = Store(settings.results / subject.name)
    for note in notes:
        store.note(note)
    if path.parent == folder and store.folder.resolve() != folder.resolve():
        text = f"has the results of an experiment that is called {subject.name}."
        raise InputError.at(Place(str(folder)), text, f"Rename the folder to {subject.name}.")
    if not store.folder.is_dir():
        raise ClipbenchError(f"{store.folder}: nothing has been trained yet. Run `clipbench run {experiment}` first.")
    return subject, store, swept


def _restored(path: Path, settings: Settings) -> Iterator[str]:
    """Write a `sweep.json` that is damaged or missing again, if the journal has the search; yield what to say of it."""
    try:
        store = Store(settings.results / config.name_of(path, settings.sets))
    except InputError:
        return  # planning reports every mistake
    file = store.folder / sweep_file.FILE
    said = sweep_file.set_aside_if_damaged(file)
    document = None
    if not file.exists() and (store.folder / JOURNAL).exists():
        with WorkerPool(1) as pool:
            document = _from_journal(pool, planned(pool, path, settings)[0], store)
    yield from store.notes
    if document:
        store.write_text(sweep_file.FILE, sweep_file.text(document))
        yield f"{said or f'{file} is missing'}, and was written again from {JOURNAL}."
    elif said:
        yield f"{said}. Run `clipbench sweep {path}`, which writes it again and trains no trial twice."


def _from_journal(pool: WorkerPool, plan: Plan, store: Store) -> SweepDocument | None:
    from clipbench.search.restored_search import restored_search

    try:
        search, contenders = search_settings(plan), pool.call("clipbench.planning.find_contenders:contenders", plan)
    except InputError:
        return None  # the YAML asks for no search
    return restored_search(search, contenders, store)


def _cached(path: Path, settings: Settings, *, grid: bool) -> tuple[Subject, SweepDocument | None] | None:
    """The subject of an earlier command, if nothing that it was made from has changed."""
    try:
        store = Store(settings.results / config.name_of(path, settings.sets))
        swept = None if grid else _confirmed(store)
        request = Request.of(path, settings.sets, settings.seeds, SWEEP if swept else RUN)
    except InputError:
        return None  # planning reports every mistake
    subject = subject_cache.find(store, request)
    # A continued search may have found better winners.
    return (subject, swept) if subject and set(subject.ids).issuperset(_winners(swept)) else None


def _planned(path: Path, settings: Settings, *, grid: bool) -> tuple[Subject, SweepDocument | None]:
    """The subject of a new plan: of its grid if the YAML now asks for another search, or none."""
    with WorkerPool(1) as pool:
        plan, _, _ = planned(pool, path, settings)
        store = store_of(plan, settings.results)
        swept = None if grid else _confirmed(store)
        final = _confirmation(pool, plan, swept) if swept else None
    command = SWEEP if final else RUN
    subject = subject_of(final or plan, command)
    if store.folder.is_dir():
        check_links(store.folder)
        with suppress(ClipbenchError):  # `export` reads folders that cannot be written
            subject_cache.keep_of_plan(store, plan, subject, settings.sets, settings.seeds, command)
    return subject, swept if final else None


def _confirmed(store: Store) -> SweepDocument | None:
    """The search of a store, if one of its winners was confirmed."""
    swept = sweep_file.read(store.folder / sweep_file.FILE)
    return swept if _winners(swept) else None


def _winners(swept: SweepDocument | None) -> list[str]:
    return [trial for contender in swept.contenders for trial in contender.confirmed] if swept else []


def _confirmation(pool: WorkerPool, plan: Plan, swept: SweepDocument) -> Plan | None:
    try:
        search, contenders = search_settings(plan), pool.call("clipbench.planning.find_contenders:contenders", plan)
        finalists = confirmed_finalists(search, contenders, swept)
    except InputError:
        return None  # nothing to search, or no objective
    return confirmation_plan(plan, search, finalists) if finalists is not None else None
