"""How the trials of each cohort are trained: together, or one after another where that takes less time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.plan import Chunk, Cohort, Plan
from clipbench.store import path_choices
from clipbench.store.folder import Store
from clipbench.store.path_choices import PathChoice

# Below it, trials that are trained together by compiled kernels are always faster, several times.
LARGE_BYTES = 2**22


def with_choices(plan: Plan, store: Store, device: str) -> Plan:
    """Return the plan with the choices that the store has: on a CPU, since lanes fill a GPU together."""
    known = path_choices.read(store) if device == "cpu" else {}
    return replace(plan, cohorts=tuple(_with_choice(cohort, known.get(cohort.id)) for cohort in plan.cohorts))


def with_timed_choices(pool: WorkerPool, plan: Plan, store: Store, done: Collection[str], device: str) -> Plan:
    """Return the plan with a choice for each cohort: one that the store has none for is timed, and the choice kept."""
    plan = with_choices(plan, store, device)
    chunks = _in_doubt(pool, plan, store, done, device)
    if not chunks:
        return plan
    found = {}
    for event in pool.train(chunks, device, "clipbench.engine:seconds_by_path"):
        if event.records:
            found[event.chunk.cohort] = PathChoice(*event.records)
    path_choices.add(store, found)
    return with_choices(plan, store, device)


def _in_doubt(pool: WorkerPool, plan: Plan, store: Store, done: Collection[str], device: str) -> list[Chunk]:
    """Return a chunk of each cohort that is to be timed."""
    known = path_choices.read(store)
    open_ones = [cohort for cohort in plan.cohorts if not cohort.loop_reason and cohort.id not in known]
    if device != "cpu" or not open_ones:
        return []
    compiled = all(pool.call("clipbench.engine:has_kernels", dtype) for dtype in _dtypes(open_ones))
    timed = {cohort.id for cohort in open_ones if cohort.lane_bytes >= LARGE_BYTES or not compiled}
    chunks = plan.chunks(done, pool.size, device) if timed else []
    return list({chunk.cohort: chunk for chunk in chunks if chunk.cohort in timed}.values())


def _dtypes(cohorts: Collection[Cohort]) -> set[str]:
    return {trial.train.dtype for cohort in cohorts for trial in cohort.trials[:1]}


def _with_choice(cohort: Cohort, choice: PathChoice | None) -> Cohort:
    return replace(cohort, loop_reason=cohort.loop_reason or choice.loop_reason) if choice else cohort
