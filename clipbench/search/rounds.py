"""One round of a search: points of all contenders, cut into chunks, trained at once, and told."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clipbench.commands.session import Session
from clipbench.config.sweep_section import OF_EPOCHS
from clipbench.core.records import Records
from clipbench.core.trial import Trial
from clipbench.execution.protocol import ChoosePruned, EpochReport
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.plan import Chunk, Cohort, Plan, most_lanes
from clipbench.search import samplers_and_pruners, scoring
from clipbench.search.confirm import Content, by_content, content_of
from clipbench.search.scoring import PointScore, Row
from clipbench.search.settings import LOSS, SearchSettings
from clipbench.search.study import Point, Study
from clipbench.store import Store

DONE = ("finished", "diverged")
PRUNED = "pruned"
FEWEST_ALIKE = 2  # points of a rule in a chunk, or it is better off in another one
STAGE = 2  # seeds of a point that are released at once, after the first few


@dataclass(frozen=True)
class StudyPoint:
    """A point, and the study that asked for it."""

    study: Study
    point: Point

    @property
    def trials(self) -> tuple[Trial, ...]:
        return self.point.trials


class PointPruner:
    """Decides at the end of an epoch which points go no further. StudyPoint again about an epoch, it says the same."""

    def __init__(self, asked: Sequence[StudyPoint], prunes: bool) -> None:
        self._asked = {trial.id: each for each in asked for trial in each.trials}
        self._prunes = prunes
        self._decided: dict[tuple[str, int, int], bool] = {}

    @property
    def choose_pruned(self) -> ChoosePruned | None:
        return self._advise if self._prunes else None

    def _advise(self, questions: Sequence[EpochReport]) -> list[set[str]]:
        reported = [list(self._report(question)) for question in questions]
        return [
            {trial.id for each in points for trial in each.trials if self._is_over(each, question.epoch)}
            for question, points in zip(questions, reported, strict=True)
        ]

    def tagged(self, records: Records) -> Records:
        """The study and the number of the point, as tags in MLflow."""
        asked = [self._asked[str(id_)] for id_ in records.records["id"]]
        words = {
            "study": np.array([each.study.name for each in asked], dtype=object),
            "point": np.array([str(each.point.number) for each in asked], dtype=object),
        }
        return replace(records, records={**records.records, **words})

    def _report(self, question: EpochReport) -> Iterator[StudyPoint]:
        """Points that the question knows all trials of; what they come to so far is told to their studies.

        Where validation data are not looked at in every epoch, an epoch without them says nothing of a point.
        """
        points = {id(self._asked[id_]): self._asked[id_] for id_ in question.measured}
        for each in points.values():
            objective = each.study.search.objectives[0]
            told = [question.measured.get(trial.id) for trial in each.trials]
            measured = [values for values in told if values is not None and objective.name in values]
            if len(measured) == len(told):
                if _key(each, question.epoch) not in self._decided:
                    score = self._score(each, [values[objective.name] for values in measured])
                    each.study.report(each.point, question.epoch, score)
                yield each

    def _score(self, asked: StudyPoint, values: Sequence[float]) -> float:
        worst = math.nan if np.isfinite(values).all() else asked.study.worst()[0]
        return scoring.running_score(values, asked.study.search.objectives[0], worst, math.nan)

    def _is_over(self, asked: StudyPoint, epoch: int) -> bool:
        key = _key(asked, epoch)
        if key not in self._decided:
            self._decided[key] = asked.study.should_prune(asked.point)
        return self._decided[key]


def _key(asked: StudyPoint, epoch: int) -> tuple[str, int, int]:
    return asked.study.name, asked.point.number, epoch


class Round:
    """Trains points into the store, and tells their studies what they came to."""

    def __init__(
        self, session: Session, pool: WorkerPool, plan: Plan, store: Store, device: str, search: SearchSettings
    ) -> None:
        self._session, self._pool, self._store = session, pool, store
        self._device, self._search = device, search
        self._cohorts = by_content(plan)

    def lane_steps(self, study: Study) -> int:
        """Of one point."""
        seeds = len(self._search.seeds)
        return sum(self._cohorts[content_of(template)].steps * seeds for template in study.contender.templates)

    def train(self, asked: Sequence[StudyPoint], *, again: bool = False) -> set[str]:
        """Train what the store lacks; the names of studies of which every point failed.

        `again` says that somebody began with these points: what is pruned of them was pruned by their own study.
        """
        if self._search.pruner == "wilcoxon":
            self._in_stages(asked)
        else:
            self._all_at_once(asked, (*DONE, PRUNED) if again else DONE)
        rows = self._rows(trial for each in asked for trial in each.trials)
        outcomes = [(each, self._tell(each, rows)) for each in asked]
        failing = {each.study.name for each, outcome in outcomes if outcome.failed}
        return failing - {each.study.name for each, outcome in outcomes if not outcome.failed}

    def _all_at_once(self, asked: Sequence[StudyPoint], enough: Sequence[str]) -> None:
        rows = self._rows(trial for each in asked for trial in each.trials)
        missing = [[trial for trial in each.trials if not _is_there(rows.get(trial.id), enough)] for each in asked]
        self._train([trials for trials in missing if trials], PointPruner(asked, self._search.pruner in OF_EPOCHS))
        self._skip(trial for each in asked for trial in each.trials if _is_there(rows.get(trial.id), enough))

    def _in_stages(self, asked: Sequence[StudyPoint]) -> None:
        """A few seeds of all points, then more of those that are not yet known to be worse than the best one."""
        alive, start = list(asked), 0
        length = max(len(each.trials) for each in asked)
        while alive and start < length:
            stop = start + (samplers_and_pruners.FEWEST_PAIRS if start == 0 else STAGE)
            stage = [StudyPoint(each.study, replace(each.point, trials=each.trials[start:stop])) for each in alive]
            self._all_at_once(stage, DONE)
            for each in stage:
                self._report_seeds(each, start)
            over = [each for each in alive if stop < length and each.study.should_prune(each.point)]
            self._skip(trial for each in over for trial in each.trials[stop:])
            alive = [each for each in alive if each not in over]
            start = stop

    def _report_seeds(self, asked: StudyPoint, first: int) -> None:
        rows = self._rows(asked.trials)
        for number, trial in enumerate(asked.trials):
            if _is_there(rows.get(trial.id), DONE):
                found = self._outcome(asked.study, [rows[trial.id]])
                asked.study.report(asked.point, first + number, found.scores[0])

    def _train(self, points: Sequence[Sequence[Trial]], adviser: PointPruner) -> None:
        chunks = chunks_of(points, self._cohorts, self._pool.size, self._device)
        if chunks:
            self._session.train(self._pool, chunks, self._store, self._device, adviser)

    def _tell(self, asked: StudyPoint, rows: Mapping[str, Row]) -> PointScore:
        there = [rows[trial.id] for trial in asked.trials if trial.id in rows]
        found = self._outcome(asked.study, there)
        if self._search.pruner == "wilcoxon" and len(there) < len(asked.trials):
            found = replace(found, pruned=True)
        elif len(there) < len(asked.trials):
            found = replace(found, failed=True)
        asked.study.tell(asked.point, found)
        return found

    def _outcome(self, study: Study, rows: Sequence[Row]) -> PointScore:
        objectives = self._search.objectives
        diverged = [row["id"] for row in rows if row["status"] == "diverged"]
        needed = bool(diverged) and not all(objective.higher for objective in objectives)
        return scoring.outcome(rows, objectives, study.worst(), self._initial_loss(diverged) if needed else math.nan)

    def _initial_loss(self, ids: Sequence[str]) -> float:
        """The largest loss that was there before anything was learned."""
        steps = self._store.steps(ids, [LOSS])
        first = steps.loc[steps["step"] == 1, LOSS].to_numpy(float)
        return float(np.max(first[np.isfinite(first)], initial=-math.inf)) if first.size else math.nan

    def _rows(self, trials: Iterable[Trial]) -> dict[str, Row]:
        return {row["id"]: row for row in self._store.rows([trial.id for trial in trials])}

    def _skip(self, trials: Iterable[Trial]) -> None:
        self._session.progress.advance(sum(self._cohorts[content_of(trial)].steps for trial in trials))


def _is_there(row: Row | None, enough: Sequence[str]) -> bool:
    return row is not None and row["status"] in enough


def chunks_of(
    points: Iterable[Sequence[Trial]], cohorts: Mapping[Content, Cohort], workers: int, device: str
) -> list[Chunk]:
    """The trials of a point stay together: only so a point can be judged while it is trained."""
    parts: dict[Content, list[Sequence[Trial]]] = {}
    for trials in points:
        for content, together in itertools.groupby(sorted(trials, key=_sort_key), content_of):
            parts.setdefault(content, []).append(list(together))
    cut = [chunk for content, found in parts.items() for chunk in _cut(cohorts[content], found, workers, device)]
    return sorted(cut, key=lambda chunk: -chunk.steps)


def _sort_key(trial: Trial) -> str:
    return repr(content_of(trial))


def _cut(cohort: Cohort, parts: Sequence[Sequence[Trial]], workers: int, device: str) -> Iterator[Chunk]:
    """As much work for each worker; all chunks of one shape.

    Chunks wait for one another at the end of every epoch, and rules differ in what they cost: so each chunk has points
    of every rule, unless these were too few to be worth another call of it.
    """
    lanes = max(map(len, parts))
    together = max(1, most_lanes(cohort, device) // lanes)
    pieces = max(-(-len(parts) // together), min(workers, len(parts)))
    size = -(-len(parts) // (workers * -(-pieces // workers) if pieces > workers else pieces))
    ordered = sorted(parts, key=lambda part: (repr(part[0].optimizer), part[0].clip.name))
    count = -(-len(parts) // size)
    is_dealt = size >= FEWEST_ALIKE * len({part[0].clip.name for part in parts})
    for number in range(count):
        chosen = ordered[number::count] if is_dealt else ordered[number * size : (number + 1) * size]
        yield Chunk(cohort.id, tuple(itertools.chain.from_iterable(chosen)), size * lanes, cohort.steps)
