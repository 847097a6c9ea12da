"""Check the split of data: shares that leave something to train on, and folds."""

from __future__ import annotations

from collections.abc import Callable

from clipbench.config.axes import Axis
from clipbench.config.components import Choice
from clipbench.errors import Findings, Place


def check_partition(choice: Choice, place: Callable[[str], Place], findings: Findings) -> None:
    """Report options of data that conflict; `place` returns the place of a key."""
    axes = dict(choice.axes)
    folds, fold = (axes.get(name, Axis((None,))).values for name in ("folds", "fold"))
    if len(folds) > 1:
        text = "folds must be a single number."
        findings.add(place(f"{choice.key}.folds"), text, "Write for example folds: 5.")
        return
    wrong = [number for number in fold if number is not None and (folds[0] is None or number >= folds[0])]
    if wrong:
        text = f"fold must be at most {folds[0] - 1}, got {wrong[0]}." if folds[0] else "fold requires folds."
        findings.add(place(f"{choice.key}.fold"), text, "Write folds: 5 to train on every fold.")
        return
    test = 1 / folds[0] if folds[0] else max(axes["split.test"].values)
    held_out = max(axes["split.val"].values) + test
    if held_out >= 1:
        text = f"the shares of val and test must sum to less than 1, got {held_out:g}."
        findings.add(place(f"{choice.key}.split"), text)
