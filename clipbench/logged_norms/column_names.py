"""Which columns of a log are meant: by what a user asks for, or by a name that says gradient norm."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from clipbench.errors import InputError, Place, did_you_mean

MOST_LISTED = 20
PARTS = re.compile(r"/| - |:")  # of a name: `train/grad_norm/pre`, and `my run - grad_norm` in files of W&B
BEFORE = r"(?:pre|before)(?:clip(?:ping)?)?|unclipped|raw"
AFTER = r"(?:post|after)(?:clip(?:ping)?)?|clipped"
# Of a part without signs: `gradnorm`, `gnorm`, `grad20normtotal` as Lightning has it, `globalgradientnorm`.
NORM = re.compile(
    r"(?:global|total|train|l2)*(?:grad(?:ient)?s?(?:l?\d+)?norms?|gnorms?|totalnorm)"
    rf"(?:total|global|l?\d+|{BEFORE}|{AFTER})*"
)
LATER = re.compile(rf"total|global|all|model|{BEFORE}|{AFTER}")  # parts after the norm
STEP = re.compile(r"(?:global)?(?:step|iter(?:ation)?)s?")
ANY = re.compile(r"values?|norms?|\d+")  # as in files that TensorBoard writes; a number is that of a column


def is_step(column: str) -> bool:
    """Whether a column has the numbers of steps."""
    return bool(STEP.fullmatch(_parts(column)[-1]))


def chosen_columns(columns: Sequence[str], wanted: Sequence[str], place: Place) -> list[str]:
    """Return the columns that are asked for, of which `grad/*` names several; else that of the gradient norm."""
    if wanted:
        return list(dict.fromkeys(name for each in wanted for name in _asked_for(each, columns, place)))
    found = [column for column in columns if _is_norm(_parts(column))]
    found = [column for column in found if re.search(BEFORE, "".join(_parts(column)))] or found
    found = [column for column in found if not re.search(AFTER, "".join(_parts(column)))] or found
    found = found or [column for column in columns if ANY.fullmatch(_parts(column)[-1])]
    if len(found) == 1:
        return found
    if any(_is_norm(_parts(column)) for column in found):
        text = f"{len(found)} columns are gradient norms: {_listed(found)}."
        raise InputError.at(place, text, "Add `--column NAME`.")
    if not columns:
        raise InputError.at(place, "there is no column of numbers.")
    raise InputError.at(place, f"no column is called a gradient norm: {_listed(columns)}.", "Add `--column NAME`.")


def _asked_for(wanted: str, columns: Sequence[str], place: Place) -> list[str]:
    if wanted in columns:
        return [wanted]
    if found := [column for column in columns if fnmatchcase(column, wanted)]:
        return found
    remedy = did_you_mean(wanted, columns[:MOST_LISTED])
    raise InputError.at(place, f"there is no column of numbers {wanted!r}.", remedy)


def _parts(column: str) -> list[str]:
    """Return the parts of a name, in small letters and without signs."""
    parts = [re.sub(r"[^a-z0-9]", "", part) for part in PARTS.split(column.lower())]
    return [part for part in parts if part] or [""]


def _is_norm(parts: Sequence[str]) -> bool:
    at = next((number for number, part in enumerate(parts) if NORM.fullmatch(part)), None)
    return at is not None and all(LATER.fullmatch(part) for part in parts[at + 1 :])


def _listed(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - MOST_LISTED} more" if len(columns) > MOST_LISTED else ""
    return ", ".join(columns[:MOST_LISTED]) + more
