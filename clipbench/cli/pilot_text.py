"""What a pilot found, as text: percentiles, the effects of thresholds, and the YAML to paste."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipbench.commands.pilot import Percentiles
    from clipbench.pilot.results import Proposal

MOST_TENSORS = 12  # that a terminal lists
MOST_LETTERS = 25  # of the name of a tensor
WIDTH = 80


def percentiles(rows: Sequence[Percentiles], tensors: int) -> Iterator[str]:
    """The table of percentiles; the last rows are those of the tensors."""
    from clipbench.commands.pilot import PERCENTS

    known = [row for row in (rows if tensors <= MOST_TENSORS else rows[:-tensors]) if row.count]
    if not known:
        yield "No finite step, nothing to measure."
        return
    width = max(15, *(len(_shortened(row.name)) for row in known))
    heads = ["max" if percent == 100 else f"{percent} %" for percent in PERCENTS]
    yield f"{'before clipping':{width}} " + "".join(f"{head:>9}" for head in heads)
    for row in known:
        yield f"{_shortened(row.name):{width}} " + "".join(f"{_size(value):>9}" for value in row.values)


def effects(proposals: Iterable[Proposal]) -> Iterator[str]:
    """A table of the thresholds that were given."""
    rows = [
        (f"{proposal.rule.name}@{level.threshold:g}", f"{_percent(level.share)} of {proposal.unit}", level.left)
        for proposal in proposals
        for level in proposal.levels
        if proposal.by == "given"
    ]
    if rows:
        width = max(15, *(len(name) for name, *_ in rows))
        yield f"{'threshold':{width}} {'clips':>17}  median coefficient where it clips"
        for name, share, left in rows:
            yield f"{name:{width}} {share:>17}  {'-' if left is None or math.isnan(left) else f'{left:.3g}'}"
        yield ""


def clip_section(proposals: Iterable[Proposal], left_out: Sequence[str] = ()) -> Iterator[str]:
    """The section `clip` of an experiment."""
    yield "clip:"
    yield "  - none"
    for proposal in proposals:
        comment = _comment(proposal)
        if comment:
            yield f"  # {comment}"
        yield f"  - {_arm(proposal)}"
    if left_out:
        text = f"Left out, because they need more than these norms: {', '.join(left_out)}"
        yield from textwrap.wrap(text, WIDTH, initial_indent="  # ", subsequent_indent="  # ")


def percentiles_as_dict(rows: Iterable[Percentiles]) -> dict[str, Any]:
    from clipbench.commands.pilot import PERCENTS

    return {
        row.name: {"count": row.count, **{str(p): v for p, v in zip(PERCENTS, row.values, strict=True)}}
        for row in rows
        if row.count
    }


def proposals_as_dicts(proposals: Iterable[Proposal]) -> list[dict[str, Any]]:
    return [
        {
            "strategy": proposal.rule.name,
            "by": proposal.by,
            "unit": proposal.unit or None,
            "thresholds": [level.threshold for level in proposal.levels],
            "shares": [_finite(level.share) for level in proposal.levels],
        }
        | ({"coefficients": [_finite(level.left) for level in proposal.levels]} if proposal.by == "given" else {})
        for proposal in proposals
    ]


def _shortened(name: str) -> str:
    """Shorten the name of a tensor and keep its end, which tells more."""
    return name if len(name) <= MOST_LETTERS else f"norm, ...{name[9 - MOST_LETTERS :]}"


def _arm(proposal: Proposal) -> str:
    name = json.dumps(proposal.rule.name) if ":" in proposal.rule.name else proposal.rule.name
    if not proposal.levels:
        return name
    return f"{{name: {name}, threshold: [{', '.join(_number(level.threshold) for level in proposal.levels)}]}}"


def _number(value: float) -> str:
    text = f"{value:g}"
    return text.replace("e", ".0e") if "e" in text and "." not in text else text  # 1e-05 is a string in YAML


def _comment(proposal: Proposal) -> str:
    shares = ", ".join(_percent(level.share) for level in proposal.levels)
    if proposal.by in ("fires", "given"):
        return f"clips {shares} of {proposal.unit}"
    if proposal.by == "keeps":
        return f"median remaining norm: {shares}"
    return "no suggestion; the default search range of the rule" if proposal.levels else ""


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.3g} %"


def _size(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "-"


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
