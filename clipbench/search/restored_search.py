"""A search whose `sweep.json` is lost: described again from Optuna's journal and the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import optuna

from clipbench.planning.contender import Contender
from clipbench.search.confirm import confirming_ids, finalists
from clipbench.search.settings import SearchSettings
from clipbench.search.storage import JOURNAL, SweepJournal
from clipbench.search.study import Study
from clipbench.search.sweep_description import describe
from clipbench.store.folder import Store
from clipbench.store.sweep_file import SweepDocument


def restored_search(search: SearchSettings, contenders: Sequence[Contender], store: Store) -> SweepDocument | None:
    """Return the search of these contenders with its winners, or None if there is none in the journal."""
    storage = SweepJournal().open(store.folder, store.note)
    known = optuna.get_all_study_names(storage)
    searched = [each for each in contenders if each.hyperparameters and search.study_name(each) in known]
    if not searched:
        return None
    document = describe(search, contenders, [Study(each, search, storage) for each in searched], "", JOURNAL)
    rows = store.current_rows()
    ids = confirming_ids(finalists(contenders, document), search)
    ids = {label: trials for label, trials in ids.items() if rows.keys() >= set(trials)}
    if not ids:
        return document
    tried = max(each.tried for each in document.contenders)  # `--trials` may have asked for another number
    confirmed = tuple(replace(each, confirmed=ids.get(each.label, ())) for each in document.contenders)
    return replace(document, trials=tried, contenders=confirmed)
