"""Where studies are stored: Optuna's journal in the results folder, or a database given by its URL."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.storages import BaseStorage, JournalStorage

from clipbench.search.journal import DamagedJournalError, Journal
from clipbench.store.atomic_files import set_aside, write_atomically, writing
from clipbench.store.folder import Store

if TYPE_CHECKING:
    from clipbench.search.database import Database

JOURNAL = "sweep.journal"
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, AssertionError)  # what Optuna raises

# Progress and errors are shown by clipbench.
optuna.logging.set_verbosity(optuna.logging.ERROR)


def storage_at(url: str | None) -> SweepJournal | Database:
    """Return the journal, or the database at a URL. Raise InputError if the URL cannot be that of a database."""
    if url is None:
        return SweepJournal()
    from clipbench.search.database import Database

    return Database(url)


class SweepJournal:
    """Optuna's journal in the results folder. A `Database` has the same methods."""

    name = JOURNAL

    def open(self, folder: Path, note: Callable[[str], None]) -> BaseStorage:
        """Open the storage of all studies of an experiment; create it if it does not exist.

        A journal that is damaged is set aside, which is noted. The lines before the damage are kept.
        """
        path = folder / JOURNAL
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                return _opened(path)
            except DamagedJournalError as damage:
                with Store(folder).lock():  # nobody else writes
                    content = path.read_bytes()[: damage.whole]
                    aside = set_aside(path)
                    write_atomically(path, content)
                said = f"{path} is damaged (line {damage.line}): it was renamed to {aside.name}"
                note(f"{said}, and the search goes on from the lines before and from what is saved.")
            return _opened(path)

    def connection(self) -> AbstractContextManager[None]:
        """Turn the error of a lost storage into a message that says how to continue."""
        return nullcontext()

    def exclusive(self) -> AbstractContextManager[None]:
        """Wait for a lock among the processes that use the storage from other folders, if there can be any."""
        return nullcontext()


def _opened(path: Path) -> BaseStorage:
    journal = Journal(path)
    try:
        return JournalStorage(journal)
    except UNREADABLE:
        raise journal.damage from None
