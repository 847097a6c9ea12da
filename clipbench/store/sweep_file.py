"""The file `sweep.json`: what a search tried of each contender, as it was written when the search paused or ended."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipbench.errors import ClipbenchError
from clipbench.store.json_fields import Fields, Scalar, UnexpectedError

FORMAT = 1
OLD_KEY = "knobs"  # of `hyperparameters` in files of earlier versions
FILE = "sweep.json"
STATES = ("complete", "pruned", "failed", "running")
PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True)
class SearchObjective:
    """A measure that the search made as good as it could."""

    name: str
    higher: bool  # is better


@dataclass(frozen=True)
class SearchedHyperparameter:
    """An option that was searched, and where."""

    path: str  # column of the records: `threshold`, `lr`, `optimizer.momentum`
    key: str  # where it stands in the YAML
    low: float
    high: float
    log: bool
    whole: bool
    choices: tuple[Scalar, ...] = ()  # instead of a range


@dataclass(frozen=True)
class SearchedPoint:
    """A value for every hyperparameter, trained on the search seeds."""

    number: int
    values: Mapping[str, Scalar]
    origin: str  # yaml, pilot or search
    state: str  # one of STATES
    scores: tuple[float, ...]  # one an objective, none while there is none; a diverged lane counts by a penalty
    deviations: tuple[float, ...]  # standard deviation of each over the lanes
    diverged: int
    lanes: int
    epochs: int  # of each lane
    ids: tuple[str, ...]

    @property
    def is_steady(self) -> bool:
        """Trained to its end on every seed: its scores are measures of a model and nothing else."""
        known = bool(self.scores) and all(map(math.isfinite, self.scores))
        return self.state == "complete" and not self.diverged and known

    def score(self, objective: int) -> float:
        """NaN where there is none."""
        return self.scores[objective] if self.scores else math.nan

    def deviation(self, objective: int) -> float:
        return self.deviations[objective] if self.deviations else math.nan


@dataclass(frozen=True)
class RangeEdge:
    """An end of a hyperparameter's range at which the best point lies."""

    path: str
    end: str  # low or high
    remedy: str  # what to type to widen the range


@dataclass(frozen=True)
class SearchedContender:
    """A strategy on one setting, with what was searched of it; without hyperparameters it is a baseline."""

    name: str
    setting: str
    label: str
    study: str
    hyperparameters: tuple[SearchedHyperparameter, ...]
    points: tuple[SearchedPoint, ...]
    importances: Mapping[str, float]
    winner: int | None
    pareto: tuple[int, ...]
    edges: tuple[RangeEdge, ...]
    confirmed: tuple[str, ...]  # trials of the winner on the confirm seeds

    @property
    def winning(self) -> SearchedPoint | None:
        return next((point for point in self.points if point.number == self.winner), None)

    @property
    def front(self) -> tuple[SearchedPoint, ...]:
        """The points that no other point of the contender beats in every objective."""
        return tuple(point for point in self.points if point.number in self.pareto)

    @property
    def size(self) -> float:
        """How many different points there are; infinite where a hyperparameter has a range."""
        return math.prod(len(param.choices) or math.inf for param in self.hyperparameters)

    def count(self, *states: str) -> int:
        return sum(point.state in states for point in self.points)

    @property
    def tried(self) -> int:
        """Points that are not under way any more."""
        return self.count("complete", "pruned", "failed")

    @property
    def epochs(self) -> int:
        """That were trained of all its lanes."""
        return sum(point.epochs * point.lanes for point in self.points)


@dataclass(frozen=True)
class SweepDocument:
    """A search: how it went about, and what it tried of each contender."""

    experiment: str
    sampler: str
    pruner: str
    trials: int  # points asked for, of each contender
    search_seeds: tuple[int, ...]
    confirm_seeds: tuple[int, ...]
    objectives: tuple[SearchObjective, ...]
    storage: str
    stopped: str  # why it ended early; empty where it did not
    contenders: tuple[SearchedContender, ...]

    @property
    def searched(self) -> tuple[SearchedContender, ...]:
        return tuple(contender for contender in self.contenders if contender.hyperparameters)

    @property
    def paths(self) -> tuple[str, ...]:
        """Everything that was searched, of any contender; the threshold first, as in the name of an arm."""
        every = dict.fromkeys(param.path for contender in self.contenders for param in contender.hyperparameters)
        return tuple(sorted(every, key=lambda path: path != "threshold"))

    @property
    def ids(self) -> frozenset[str]:
        """The trials of all points."""
        return frozenset(id_ for contender in self.contenders for point in contender.points for id_ in point.ids)


def text(swept: SweepDocument) -> str:
    """The file that tells of a search."""
    return json.dumps({"format": FORMAT} | _known(asdict(swept)), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _known(value: Any, infinite: str | None = None) -> Any:
    """JSON has no word for what is no number but null; an option that is infinite is spelt as in YAML."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if infinite is None or math.isnan(value) else infinite if value > 0 else f"-{infinite}"
    if isinstance(value, dict):
        return {key: _known(each, ".inf" if key in ("values", "choices") else infinite) for key, each in value.items()}
    return [_known(each, infinite) for each in value] if isinstance(value, list | tuple) else value


def read(path: Path) -> SweepDocument | None:
    """The search that a file tells of; None where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ClipbenchError(f"{path}: it cannot be read ({error}). {_remedy(path)}") from None
    try:
        return _swept(Fields(json.loads(text)), path)
    except UnexpectedError as error:
        raise ClipbenchError(f"{path}: {error}. {_remedy(path)}") from None
    except (ValueError, RecursionError) as error:
        raise ClipbenchError(f"{path}: it is no JSON ({error}). {_remedy(path)}") from None


def _remedy(path: Path) -> str:
    return f"Remove the file and type `clipbench sweep {path.parent.name}`: the search is in Optuna's storage."


def _swept(fields: Fields, path: Path) -> SweepDocument:
    if (found := fields.whole("format")) > FORMAT:
        raise ClipbenchError(
            f"{path}: format {found} was written by a newer clipbench, this one reads up to {FORMAT}. Update clipbench."
        )
    objectives = tuple(SearchObjective(each.text("name"), each.flag("higher")) for each in fields.objects("objectives"))
    if not objectives:
        raise fields.wrong("objectives", "one or more")
    return SweepDocument(
        experiment=fields.text("experiment"),
        sampler=fields.text("sampler"),
        pruner=fields.text("pruner"),
        trials=fields.whole("trials"),
        search_seeds=fields.wholes("search_seeds"),
        confirm_seeds=fields.wholes("confirm_seeds"),
        objectives=objectives,
        storage=PASSWORD.sub("", fields.text("storage")),
        stopped=fields.text("stopped"),
        contenders=tuple(_contender(each, len(objectives)) for each in fields.objects("contenders")),
    )


def _contender(fields: Fields, objectives: int) -> SearchedContender:
    points = tuple(_point(each, objectives) for each in fields.objects("points"))
    numbers = {point.number for point in points}
    winner, pareto = fields.whole_or_none("winner"), fields.wholes("pareto")
    if winner is not None and winner not in numbers:
        raise fields.wrong("winner", "the number of a point")
    if not numbers.issuperset(pareto):
        raise fields.wrong("pareto", "numbers of points")
    return SearchedContender(
        name=fields.text("name"),
        setting=fields.text("setting"),
        label=fields.text("label"),
        study=fields.text("study"),
        hyperparameters=tuple(
            _hyperparameter(each) for key in ("hyperparameters", OLD_KEY) for each in fields.objects(key)
        ),
        points=tuple(sorted(points, key=lambda point: point.number)),
        importances=fields.shares("importances"),
        winner=winner,
        pareto=pareto,
        edges=tuple(
            RangeEdge(each.text("path"), each.text("end"), each.text("remedy")) for each in fields.objects("edges")
        ),
        confirmed=fields.texts("confirmed"),
    )


def _hyperparameter(fields: Fields) -> SearchedHyperparameter:
    return SearchedHyperparameter(
        path=fields.text("path"),
        key=fields.text("key"),
        low=fields.number("low"),
        high=fields.number("high"),
        log=fields.flag("log"),
        whole=fields.flag("whole"),
        choices=fields.scalars("choices"),
    )


def _point(fields: Fields, objectives: int) -> SearchedPoint:
    state = fields.text("state")
    if state not in STATES:
        raise fields.wrong("state", f"one of {', '.join(STATES)}")
    return SearchedPoint(
        number=fields.whole("number"),
        values=fields.mapping("values"),
        origin=fields.text("origin"),
        state=state,
        scores=_each(fields, "scores", objectives),
        deviations=_each(fields, "deviations", objectives),
        diverged=fields.whole("diverged"),
        lanes=fields.whole("lanes"),
        epochs=fields.whole("epochs"),
        ids=fields.texts("ids"),
    )


def _each(fields: Fields, key: str, objectives: int) -> tuple[float, ...]:
    """A number an objective; a point that has none yet has an empty list."""
    values = fields.numbers(key)
    if len(values) not in (0, objectives):
        raise fields.wrong(key, f"{objectives} numbers, one an objective")
    return values
