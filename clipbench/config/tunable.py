"""Options that `report.tuned` may choose for each strategy."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from clipbench.config.axes import Axis
from clipbench.core.trial import Component
from clipbench.errors import Findings, Place

TRAINING = ("schedule", "l1", "l2")


def is_tunable(column: str) -> bool:
    """Return whether a column of the records is tunable: any option of the optimizer, and a few of training."""
    section, _, option = column.partition(".")
    if section == "train":
        return option.partition(".")[0] in TRAINING
    return column == "lr" or (section == "optimizer" and bool(option))


def check_tuned(
    optimizers: Sequence[Component], training: Mapping[str, Axis], place: Place, findings: Findings
) -> None:
    """`tuned: true` needs an axis to choose from."""
    names = [component.name for component in optimizers]
    varies = any(len(axis.values) > 1 for name, axis in training.items() if name in TRAINING)
    if not varies and not any(one == other for one, other in itertools.combinations(names, 2)):
        text = "there is nothing to tune: no option of an optimizer has several values."
        findings.add(place, text, "Write optimizer.lr: [0.01, 0.1, 1.0], or remove `tuned`.")
