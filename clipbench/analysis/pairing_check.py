"""Whether the arms of a seed began alike: scripts record hashes of their initial weights and their first batches."""

from __future__ import annotations

import pandas as pd

from clipbench.analysis import arms
from clipbench.analysis.report_model import Unpaired

RECORDED = ("initial_weights", "first_batches")


def unpaired(frame: pd.DataFrame) -> tuple[Unpaired, ...]:
    """Return what differs between the arms of a seed, and on which seeds; of trials with the same options."""
    found = []
    for column in RECORDED:
        if column not in frame:
            continue
        known = frame[frame[column].notna() & frame[column].ne("")]
        groups = [arms.codes_of(known, arms.setting_columns(known)), known["seed"].to_numpy()]
        different = known.groupby(groups)[column].nunique().gt(1)
        seeds = sorted({int(seed) for _, seed in different[different].index})
        if seeds:
            found.append(Unpaired(column, tuple(seeds), frame["seed"].nunique()))
    return tuple(found)
