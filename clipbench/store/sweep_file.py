"""The file `sweep.json`: all points that a search tried of each contender, written after every round."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field, TypeAdapter

from clipbench.errors import ClipbenchError
from clipbench.store import json_document
from clipbench.store.atomic_files import DamagedFileError, set_aside
from clipbench.store.json_document import DocumentError, Number, OptionValue

FORMAT = 1
FILE = "sweep.json"
PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")

PointState = Literal["complete", "pruned", "failed", "running"]


@dataclass(frozen=True)
class SearchObjective:
    """A measure that the search optimizes."""

    name: str
    higher: bool  # is better

    @property
    def sign(self) -> int:
        """Turns scores so that more is better."""
        return 1 if self.higher else -1


@dataclass(frozen=True)
class SearchedHyperparameter:
    """A searched option with its range or its choices."""

    path: str  # column of the records: `threshold`, `lr`, `optimizer.momentum`
    key: str  # YAML key
    low: Number
    high: Number
    log: bool
    whole: bool
    choices: tuple[OptionValue, ...]  # instead of a range


@dataclass(frozen=True)
class SearchedPoint:
    """A value for every hyperparameter, trained on the search seeds."""

    number: int
    values: Mapping[str, OptionValue]
    origin: str  # yaml, pilot or search
    state: PointState
    scores: tuple[Number, ...]  # one for each objective, or none yet; a diverged lane counts with a penalty
    deviations: tuple[Number, ...]  # standard deviation of each over the lanes
    diverged: int  # lanes
    lanes: int
    epochs: int  # of each lane
    ids: tuple[str, ...]
    round: int = 0  # number of the first point that was asked for together with this one

    @property
    def diverged_share(self) -> float:
        return self.diverged / self.lanes if self.lanes else 0.0

    @property
    def is_steady(self) -> bool:
        """Whether every seed was trained to the end without divergence, so that scores hold no penalty."""
        known = bool(self.scores) and all(map(math.isfinite, self.scores))
        return self.state == "complete" and not self.diverged and known

    def score(self, objective: int) -> float:
        """Return NaN if there is none."""
        return self.scores[objective] if self.scores else math.nan

    def deviation(self, objective: int) -> float:
        return self.deviations[objective] if self.deviations else math.nan


def without_credentials(storage: str) -> str:
    """Return the name of a storage as the file has it."""
    return PASSWORD.sub("", storage)


def _by_number(points: tuple[SearchedPoint, ...]) -> tuple[SearchedPoint, ...]:
    return tuple(sorted(points, key=lambda point: point.number))


@dataclass(frozen=True)
class RangeEdge:
    """An end of a hyperparameter's range at which the best point lies."""

    path: str
    end: str  # low or high
    remedy: str  # option of the command line that widens the range


@dataclass(frozen=True)
class SearchedContender:
    """A strategy on one setting with its study; without hyperparameters it is a baseline."""

    name: str
    setting: str
    label: str
    study: str
    # Earlier versions wrote `knobs`.
    hyperparameters: Annotated[
        tuple[SearchedHyperparameter, ...], Field(validation_alias=AliasChoices("hyperparameters", "knobs"))
    ]
    points: Annotated[tuple[SearchedPoint, ...], AfterValidator(_by_number)]
    importances: Mapping[str, Number]
    winner: int | None
    pareto: tuple[int, ...]
    edges: tuple[RangeEdge, ...]
    confirmed: tuple[str, ...]  # trials of the winner on the confirmation seeds

    @property
    def winning(self) -> SearchedPoint | None:
        return next((point for point in self.points if point.number == self.winner), None)

    @property
    def front(self) -> tuple[SearchedPoint, ...]:
        """The Pareto front: points that no other point of the contender beats in every objective."""
        return tuple(point for point in self.points if point.number in self.pareto)

    @property
    def size(self) -> float:
        """The number of different points; infinite if a hyperparameter has a range."""
        return math.prod(len(param.choices) or math.inf for param in self.hyperparameters)

    def count(self, *states: str) -> int:
        return sum(point.state in states for point in self.points)

    @property
    def tried(self) -> int:
        """The number of points that are no longer running."""
        return self.count("complete", "pruned", "failed")

    @property
    def epochs(self) -> int:
        """Epochs trained, summed over the lanes of all points."""
        return sum(point.epochs * point.lanes for point in self.points)


@dataclass(frozen=True)
class SweepDocument:
    """The settings of a search, and the points of each contender."""

    format: int
    experiment: str
    sampler: str
    pruner: str
    trials: int  # points per contender
    search_seeds: tuple[int, ...]
    confirm_seeds: tuple[int, ...]
    objectives: tuple[SearchObjective, ...]
    storage: Annotated[str, AfterValidator(without_credentials)]
    stopped: str  # why the search ended early, or empty
    contenders: tuple[SearchedContender, ...]

    @property
    def searched(self) -> tuple[SearchedContender, ...]:
        return tuple(contender for contender in self.contenders if contender.hyperparameters)

    @property
    def paths(self) -> tuple[str, ...]:
        """All searched columns, the threshold first as in the name of an arm."""
        every = dict.fromkeys(param.path for contender in self.contenders for param in contender.hyperparameters)
        return tuple(sorted(every, key=lambda path: path != "threshold"))

    @property
    def ids(self) -> frozenset[str]:
        """The trials of all points."""
        return frozenset(id_ for contender in self.contenders for point in contender.points for id_ in point.ids)


@dataclass(frozen=True)
class _Version:
    format: int


DOCUMENT, VERSION = TypeAdapter(SweepDocument), TypeAdapter(_Version)


def text(document: SweepDocument) -> str:
    """Return the content of the file."""
    return json_document.dump(DOCUMENT, document)


def read(path: Path) -> SweepDocument | None:
    """Read the file; return None if it does not exist. Raise DamagedFileError for what is no such document."""
    try:
        content = path.read_text(encoding="utf-8")
        version = json_document.load(VERSION, content).format
        if version > FORMAT:
            raise ClipbenchError(
                f"{path}: format {version} was written by a newer clipbench; this one reads formats up to {FORMAT}. "
                "Update clipbench."
            )
        document = json_document.load(DOCUMENT, content)
        for problem in _contradictions(document):
            raise DocumentError(problem)
    except FileNotFoundError:
        return None
    except (DocumentError, UnicodeDecodeError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise DamagedFileError(f"{path} is damaged ({reason})") from None
    except OSError as error:
        raise ClipbenchError(
            f"{path}: cannot be read ({error.strerror}). Check the disk and its permissions."
        ) from None
    return document


def set_aside_if_damaged(path: Path) -> str:
    """Rename a file that is damaged; return what to say of it, or an empty text if it is whole or missing."""
    try:
        read(path)
    except DamagedFileError as damage:
        return f"{damage}: it was renamed to {set_aside(path).name}"
    return ""


def _contradictions(document: SweepDocument) -> Iterator[str]:
    """What the types do not say: numbers of points that exist, and as many scores as objectives."""
    count = len(document.objectives)
    if not count:
        yield "objectives: expected one or more, got []"
    for index, contender in enumerate(document.contenders):
        place = f"contenders[{index}]"
        numbers = {point.number for point in contender.points}
        if contender.winner is not None and contender.winner not in numbers:
            yield f"{place}.winner: expected the number of a point, got {contender.winner}"
        if not numbers.issuperset(contender.pareto):
            yield f"{place}.pareto: expected numbers of points, got {list(contender.pareto)}"
        for point in contender.points:
            for key, values in (("scores", point.scores), ("deviations", point.deviations)):
                if len(values) not in (0, count):
                    got = f"got {list(values)!r:.60}"
                    yield f"{place}.points[{point.number}].{key}: expected {count} numbers, one per objective, {got}"
