"""One round of a search: train points of all contenders together, and tell their studies the results."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from clipbench.commands.session import Session
from clipbench.config.sweep_section import OF_EPOCHS
from clipbench.core.trial import Trial
from clipbench.errors import ClipbenchError
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.plan import Chunk, Cohort, Plan, most_lanes
from clipbench.search import scoring
from clipbench.search.confirm import CohortKey, cohort_key, cohorts_by_key
from clipbench.search.point_pruner import PointPruner
from clipbench.search.samplers_and_pruners import FEWEST_PAIRS
from clipbench.search.scoring import PointResult, Row
from clipbench.search.settings import LOSS, SearchSettings
from clipbench.search.study import Point, Study
from clipbench.store import checkpoint_files
from clipbench.store.folder import Store

DONE = ("finished", "diverged")
PRUNED = "pruned"
FEWEST_OF_A_RULE = 2  # points in a chunk: each rule of a chunk costs a call
SEEDS_PER_STAGE = 2  # after the first stage of the Wilcoxon pruner


class Round:
    """Trains points into the store, and tells their studies the results."""

    def __init__(
        self, session: Session, pool: WorkerPool, plan: Plan, store: Store, device: str, search: SearchSettings
    ) -> None:
        self._session, self._pool, self._store = session, pool, store
        self._device, self._search = device, search
        self._cohorts = cohorts_by_key(plan)

    def lane_steps(self, study: Study) -> int:
        """Return the lane-steps of one point."""
        seeds = len(self._search.seeds)
        return sum(self._cohorts[cohort_key(template)].steps * seeds for template in study.contender.templates)

    def train(self, points: Sequence[Point]) -> set[str]:
        """Train the trials that the store lacks. Return the names of the studies whose points all failed."""
        if self._search.pruner == "wilcoxon":
            self._in_stages(points)
        else:
            self._all_at_once(points)
        rows = self._rows(trial for each in points for trial in each.trials)
        epochs = self._store.arrays("epochs", list(rows)) if self._prunes else {}
        results = [(each, self._tell(each, rows, epochs)) for each in points]
        failing = {each.study.name for each, result in results if result.failed}
        return failing - {each.study.name for each, result in results if not result.failed}

    def _all_at_once(self, points: Sequence[Point]) -> None:
        rows = self._rows(trial for each in points for trial in each.trials)
        missing = [[trial for trial in each.trials if not self._is_done(each, rows.get(trial.id))] for each in points]
        self._train([trials for trials in missing if trials], PointPruner(points, self._prunes))
        self._skip(trial for each in points for trial in each.trials if self._is_done(each, rows.get(trial.id)))

    @property
    def _prunes(self) -> bool:
        """Whether points are pruned at the end of epochs."""
        return self._search.pruner in OF_EPOCHS

    def _is_done(self, each: Point, row: Row | None) -> bool:
        """Whether a trial was trained, or pruned by this search."""
        if row is None or row["status"] not in (*DONE, PRUNED):
            return False
        return row["status"] in DONE or (self._prunes and row.get("study") == each.study.name)

    def _in_stages(self, points: Sequence[Point]) -> None:
        """Train a few seeds of all points, then more of those that the pruner does not reject."""
        alive, start = list(points), 0
        length = max(len(each.trials) for each in points)
        while alive and start < length:
            stop = start + (FEWEST_PAIRS if start == 0 else SEEDS_PER_STAGE)
            stage = [replace(each, trials=each.trials[start:stop]) for each in alive]
            self._all_at_once(stage)
            for each in stage:
                self._report_seeds(each, start)
            pruned = [each for each in alive if stop < length and each.study.should_prune(each)]
            self._skip(trial for each in pruned for trial in each.trials[stop:])
            alive = [each for each in alive if each not in pruned]
            start = stop

    def _report_seeds(self, each: Point, first: int) -> None:
        for seed, score in self._seed_scores(each, self._rows(each.trials)).items():
            each.study.report(each, first + seed, score)

    def _seed_scores(self, each: Point, rows: Mapping[str, Row]) -> dict[int, float]:
        known = {seed: rows[trial.id] for seed, trial in enumerate(each.trials) if trial.id in rows}
        return {seed: self._result(each, [row]).scores[0] for seed, row in known.items() if row["status"] in DONE}

    def _train(self, points: Sequence[Sequence[Trial]], pruner: PointPruner) -> None:
        begun = checkpoint_files.begun(self._store.folder, self._store.done(), self._session.progress.note)
        chunks = chunks_of(points, self._cohorts, self._pool.size, self._device, begun)
        if chunks:
            self._session.train(self._pool, chunks, self._store, self._device, pruner)

    def _tell(
        self, each: Point, rows: Mapping[str, Row], epochs: Mapping[str, Mapping[str, np.ndarray]]
    ) -> PointResult:
        """Tell a study the result of a point, and what a pruner compares others with, from the store alone."""
        known = [rows[trial.id] for trial in each.trials if trial.id in rows]
        self._check_objectives(known)
        result = self._result(each, known)
        if self._search.pruner == "wilcoxon" and len(known) < len(each.trials):
            result = replace(result, pruned=True)
        elif len(known) < len(each.trials):
            result = replace(result, failed=True)
        if self._search.pruner == "wilcoxon":
            curve = self._seed_scores(each, rows)
        else:
            objective, worst = self._search.objectives[0], each.study.worst(each)[0]
            curve = scoring.curve(known, [epochs.get(row["id"], {}) for row in known], objective, worst)
        each.study.tell(each, result, curve)
        return result

    def _result(self, each: Point, rows: Sequence[Row]) -> PointResult:
        objectives = self._search.objectives
        diverged = [row["id"] for row in rows if row["status"] == "diverged"]
        needed = bool(diverged) and not all(objective.higher for objective in objectives)
        return scoring.point_result(
            rows, objectives, each.study.worst(each), self._initial_loss(diverged) if needed else math.nan
        )

    def _check_objectives(self, rows: Sequence[Row]) -> None:
        """Refuse a script that does not measure what the search looks at."""
        for row in rows:
            for name in (each.name for each in self._search.objectives if each.name != "epochs_to_target"):
                if row["status"] == "finished" and row.get("engine") == "script" and name not in row:
                    found = ", ".join(key for key in row if key.startswith(("val/", "test/"))) or "nothing"
                    raise ClipbenchError(
                        f"the search needs {name}, and the script measured {found}. Pass it to clip.report or return "
                        "it from main, or write sweep: {objective: ...}."
                    )

    def _initial_loss(self, ids: Sequence[str]) -> float:
        """Return the largest loss of a first step."""
        steps = self._store.steps(ids, [LOSS])
        first = steps.loc[steps["step"] == 1, LOSS].to_numpy(float)
        return float(np.max(first[np.isfinite(first)], initial=-math.inf)) if first.size else math.nan

    def _rows(self, trials: Iterable[Trial]) -> dict[str, Row]:
        return {row["id"]: row for row in self._store.rows([trial.id for trial in trials])}

    def _skip(self, trials: Iterable[Trial]) -> None:
        self._session.progress.advance(sum(self._cohorts[cohort_key(trial)].steps for trial in trials))


def chunks_of(
    points: Sequence[Sequence[Trial]],
    cohorts: Mapping[CohortKey, Cohort],
    workers: int,
    device: str,
    begun: Iterable[Sequence[str]] = (),
) -> list[Chunk]:
    """Distribute points over chunks. The trials of a point stay together, so that it can be pruned.

    Chunks that were `begun` come first, as they were. Each is the ids of its lanes, of which some may be the same.
    """
    left = {trial.id: trial for trials in points for trial in trials}
    first = []
    for lanes in begun:
        if left.keys() >= set(lanes):
            trials = [left.pop(each) for each in dict.fromkeys(lanes)]
            first.append(_chunk(cohorts[cohort_key(trials[0])], trials, len(lanes)))
    parts: dict[CohortKey, list[Sequence[Trial]]] = {}
    for each in points:
        waiting = sorted((trial for trial in each if trial.id in left), key=_sort_key)
        for content, together in itertools.groupby(waiting, cohort_key):
            parts.setdefault(content, []).append(list(together))
    cut = [chunk for content, found in parts.items() for chunk in _cut(cohorts[content], found, workers, device)]
    return [*first, *sorted(cut, key=lambda chunk: -chunk.steps)]


def _chunk(cohort: Cohort, trials: Sequence[Trial], lanes: int) -> Chunk:
    return Chunk(cohort.id, tuple(trials), lanes, cohort.steps, cohort.loop_reason)


def _sort_key(trial: Trial) -> str:
    return repr(cohort_key(trial))


def _cut(cohort: Cohort, parts: Sequence[Sequence[Trial]], workers: int, device: str) -> Iterator[Chunk]:
    """Cut points into chunks of the same size, and the same amount of work for each worker.

    Chunks wait for one another at the end of every epoch, and the cost of rules differs: so each chunk has points of
    every rule, unless there are too few of them.
    """
    lanes = max(map(len, parts))
    together = max(1, most_lanes(cohort, device) // lanes)
    pieces = max(-(-len(parts) // together), min(workers, len(parts)))
    size = -(-len(parts) // (workers * -(-pieces // workers) if pieces > workers else pieces))
    ordered = sorted(parts, key=lambda part: (repr(part[0].optimizer), part[0].clip.name))
    count = -(-len(parts) // size)
    is_mixed = size >= FEWEST_OF_A_RULE * len({part[0].clip.name for part in parts})
    for number in range(count):
        chosen = ordered[number::count] if is_mixed else ordered[number * size : (number + 1) * size]
        yield _chunk(cohort, list(itertools.chain.from_iterable(chosen)), size * lanes)
