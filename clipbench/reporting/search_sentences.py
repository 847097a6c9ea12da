"""The words of a search: values of hyperparameters, headline, flags and notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from clipbench.analysis.arms import short_names
from clipbench.analysis.report_model import Confirmation, ContenderResult, SearchResult
from clipbench.analysis.search_result import CONFIRMED, OPTIMISTIC, PESSIMISTIC
from clipbench.reporting import numbers
from clipbench.reporting.notes import Flag
from clipbench.store.json_document import Scalar
from clipbench.store.sweep_file import SearchedContender, SearchedPoint, SweepDocument

TITLE = "The search"
MEANING = (
    "Searched: the mean over the search seeds, by which the point was chosen among all that were tried; it is "
    "therefore optimistically biased. Fresh: the same metric on seeds that the search did not use, ± half-width of its "
    "95 % t interval."
)


def value(known: Scalar) -> str:
    """The value of a hyperparameter in four digits, as written in YAML."""
    if isinstance(known, bool):
        return str(known).lower()
    if isinstance(known, float):
        return f"{known:.4g}".replace("inf", ".inf")
    return "none" if known is None else str(known)


def names(swept: SweepDocument) -> dict[str, str]:
    """The short names of the searched options."""
    return short_names(swept.paths)


def place(point: SearchedPoint, known: Mapping[str, str]) -> str:
    """`0.53`, or `threshold=0.53, lr=0.012` where there is more than a threshold."""
    if set(known) == {"threshold"}:
        return value(point.values.get("threshold"))
    return ", ".join(f"{known.get(path, path)}={value(found)}" for path, found in point.values.items())


def headline(search: SearchResult) -> str:
    """One sentence: what was tried, what was found, and whether fresh seeds confirm it."""
    swept, finished = search.swept, [each for each in search.found if each.contender.winning]
    if not swept.searched:
        return "There was nothing to search."
    if not finished:
        return "The search has not finished any point yet."
    best = min(finished, key=lambda each: -each.confirmations[0].measure.sign * each.confirmations[0].searched)
    return f"The search tried {_tried(swept)} on {_seeds(swept)}{_best(swept, best)}."


def _tried(swept: SweepDocument) -> str:
    """`40 thresholds of norm`, `118 points of 3 strategies`."""
    contenders = swept.searched
    count = sum(contender.tried for contender in contenders)
    noun = "threshold" if swept.paths == ("threshold",) else "point"
    kind = "contender" if len({each.setting for each in contenders}) > 1 else "strategy"
    of = contenders[0].label if len(contenders) == 1 else numbers.count(len(contenders), kind)
    return f"{numbers.count(count, noun)} of {of}"


def _seeds(swept: SweepDocument) -> str:
    return f"{'seed' if len(swept.search_seeds) == 1 else 'seeds'} {numbers.seeds(swept.search_seeds)}"


def _best(swept: SweepDocument, best: ContenderResult) -> str:
    assert best.contender.winning is not None  # or it would not be the best
    where = place(best.contender.winning, names(swept))
    what = f", and the best was {best.contender.label} at {where}" if len(swept.searched) > 1 else f" and found {where}"
    first = best.confirmations[0]
    searched = f"{first.measure.name} {numbers.mean(first.searched, first.measure)}{_percent(first)}"
    return f"{what} ({searched}); {_fresh_score(best, first)}"


def _fresh_score(best: ContenderResult, confirmation: Confirmation) -> str:
    if not confirmation.confirmed.n:
        return "it is not confirmed on fresh seeds yet"
    found = f"{numbers.estimate(confirmation.confirmed, confirmation.measure)}{_percent(confirmation)}"
    reached = f"on {numbers.count(best.fresh, 'fresh seed')} it scores {found}"
    bias = confirmation.bias
    if confirmation.verdict == CONFIRMED:
        return f"{reached}, in line with the search"
    if confirmation.verdict not in (OPTIMISTIC, PESSIMISTIC):
        return reached
    size = numbers.estimate(replace(bias, mean=abs(bias.mean)), confirmation.measure).partition(" ")[0]
    unit = " percentage points" if confirmation.measure.is_share else ""
    return f"{reached}: the search was {confirmation.verdict} by {size}{unit}"


def _percent(confirmation: Confirmation) -> str:
    return " %" if confirmation.measure.is_share else ""


def flags(found: ContenderResult, swept: SweepDocument) -> Iterator[Flag]:
    """Warnings about a contender."""
    contender, fresh, known = found.contender, found.fresh, names(swept)
    for edge in contender.edges:
        end, name = "upper" if edge.end == "high" else "lower", known.get(edge.path, edge.path)
        yield Flag(f"the best point is at the {end} limit of {name}; to widen the range:", edge.remedy)
    if contender.hyperparameters:
        yield from _of_points(contender, swept)
    if contender.winning and not fresh:
        yield Flag("not confirmed yet")
    if fresh and fresh < len(swept.confirm_seeds):
        yield Flag(f"confirmed on {fresh} of {len(swept.confirm_seeds)} fresh seeds so far")
    if found.diverged:
        yield Flag(f"diverged on {found.diverged} of {fresh} fresh seeds")


def all_flags(search: SearchResult) -> list[Flag]:
    """Why the search ended early, then every flag once, with the names of its contenders."""
    about: dict[Flag, list[str]] = {}
    for row in search.found:
        for flag in flags(row, search.swept):
            about.setdefault(flag, []).append(row.contender.label)
    stopped = f"the search ended early ({search.swept.stopped}); the same command continues it"
    named = [Flag(f"{numbers.listing(labels)}: {flag.words}", flag.remedy) for flag, labels in about.items()]
    return [*([Flag(stopped)] if search.swept.stopped else []), *named]


def _of_points(contender: SearchedContender, swept: SweepDocument) -> Iterator[Flag]:
    wanted, running, winner = min(swept.trials, contender.size), contender.count("running"), contender.winning
    if contender.tried < wanted:
        under_way = f", {running} running" if running else ""
        yield Flag(f"{contender.tried} of {numbers.count(int(wanted), 'point')} tried{under_way}")
    if winner is None and contender.tried:
        yet = " yet" if contender.tried < wanted else ""
        yield Flag(f"no point has finished training{yet}")
    if winner and winner.diverged:
        diverged = f"diverged on {winner.diverged} of {winner.lanes} trials of the search"
        yield Flag(f"{diverged}; its score contains a penalty")


def notes(swept: SweepDocument) -> Iterator[str]:
    """Notes on how the search was run."""
    pruner = "" if swept.pruner == "none" else f"; pruned by {swept.pruner}"
    points = numbers.count(swept.trials, "point")
    yield f"Sampled by {swept.sampler}{pruner}; {points} for each contender, each trained on {_seeds(swept)}."
    if any(point.diverged for contender in swept.contenders for point in contender.points):
        yield "A diverged trial counts as a penalty in the score of a point: such a score is not a value of the metric."
