"""How data are parted, as options say it: shares that leave something to train on, and folds as an axis."""

from __future__ import annotations

from collections.abc import Callable

from clipbench.config.axes import Axis
from clipbench.config.components import Choice
from clipbench.errors import Findings, Place


def check_partition(choice: Choice, place: Callable[[str], Place], findings: Findings) -> None:
    """Report what is wrong between the options of one choice of data; `place` finds that of a key."""
    axes = dict(choice.axes)
    folds, fold = (axes.get(name, Axis((None,))).values for name in ("folds", "fold"))
    if len(folds) > 1:
        text = "folds make an axis themselves, and so cannot be one."
        findings.add(place(f"{choice.key}.folds"), text, "Write one number.")
        return
    if any(number is not None and (folds[0] is None or number >= folds[0]) for number in fold):
        text = (
            f"a fold is one of {folds[0]} folds, counted from 0." if folds[0] else "there are no folds to choose from."
        )
        findings.add(place(f"{choice.key}.fold"), text, "Write folds: 5; every fold is trained then.")
        return
    test = 1 / folds[0] if folds[0] else max(axes["split.test"].values)
    held_out = max(axes["split.val"].values) + test
    if held_out >= 1:
        text = f"val and test take {held_out:g} of the examples, and nothing is left to train on."
        findings.add(place(f"{choice.key}.split"), text)
