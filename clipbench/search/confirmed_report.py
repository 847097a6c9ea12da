"""The report of a sweep that was confirmed: without Optuna, and without a plan where nothing has changed."""

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
from clipbench.config.resolved_yaml import resolved
from clipbench.errors import InputError
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.plan import Plan
from clipbench.reporting.write import publish, write_combined, write_pictures
from clipbench.search.confirm import confirming, recalled
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
    """What a sweep confirmed, if there was one of this YAML; else, and with `grid`, the thresholds of the YAML."""
    path = find_experiment(experiment, settings.results)
    found = None if grid else _confirmed(path, settings)
    if found is None:
        return grid_report.report(experiment, settings)
    subject, known, store = found
    return Finished(subject, publish(subject, store, known), store.folder, swept=known)


def keep(store: Store, plan: Plan, subject: Subject, settings: Settings) -> None:
    """Keep what was confirmed, so that the next report of it needs no plan."""
    experiment = plan.experiment
    request = Request(experiment.path, experiment.text, settings.sets, settings.seeds, COMMAND)
    subject_cache.keep(store, request, plan, subject)
    copy = store.folder / "experiment.yaml"
    if copy.is_file() and copy.read_text("utf-8") == resolved(experiment):
        subject_cache.keep(store, Request.of(copy, command=COMMAND), plan, subject.read_from(copy))


def _confirmed(path: Path, settings: Settings) -> tuple[Subject, SweepDocument, Store] | None:
    try:
        store = Store(settings.results / config.name_of(path, settings.sets))
    except InputError:
        return None  # planning finds all that is wrong
    known = sweep_file.read(store.folder / sweep_file.FILE)
    if known is None or not any(contender.confirmed for contender in known.contenders):
        return None
    subject = subject_cache.find(store, Request.of(path, settings.sets, settings.seeds, COMMAND))
    if subject is None or not _is_of(subject, known):
        subject = _planned(path, settings, store, known)
    return (subject, known, store) if subject else None


def _is_of(subject: Subject, known: SweepDocument) -> bool:
    """A search that went on may have found something better than what was kept."""
    return all(trial in subject.ids for contender in known.contenders for trial in contender.confirmed)


def _planned(path: Path, settings: Settings, store: Store, known: SweepDocument) -> Subject | None:
    """None where the YAML asks for another search now, or for none; then its grid is kept, not to be planned again."""
    with WorkerPool(1) as pool:
        plan, _, _ = planned(pool, path, settings)
        try:
            search, contenders = search_settings(plan), pool.call("clipbench.planning.find_contenders:contenders", plan)
            finalists = recalled(search, contenders, known)
        except InputError:
            finalists = None  # there is nothing to search any more, or nothing to judge it by
    if finalists is None:
        grid_report.keep_subject(store, plan, subject_of(plan), settings)
        return None
    subject = subject_of(confirming(plan, search, finalists), COMMAND)
    keep(store, plan, subject, settings)
    return subject
