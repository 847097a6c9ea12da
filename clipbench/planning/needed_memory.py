"""The memory that training takes, known before anything is allocated, and the refusal of what cannot fit."""

from __future__ import annotations

from collections.abc import Sequence

from clipbench.core.machine_memory import usable_memory
from clipbench.core.trial import Component
from clipbench.errors import InputError, Place
from clipbench.planning.plan import FEWEST_LANES, Chunk, Cohort, Plan

# Of a process beside its trials. Measured with PyTorch 2.13 on a CPU.
WORKER_BYTES, PARENT_BYTES = 400 * 2**20, 300 * 2**20
SERIES_BYTES = 200  # of a step of a trial: its statistics, and those of an epoch if each step is one
SMALLER, FEWER = "Choose a smaller model or smaller batches.", "Train for fewer steps."
COPIES = 4  # of weights: themselves, gradients, and two values of the optimizer for each


def needed_memory(plan: Plan, chunks: Sequence[Chunk], workers: int) -> int:
    """Return the bytes that all processes together use at most, without the data."""
    cohorts = {cohort.id: cohort for cohort in plan.cohorts}
    each = sorted((_of_chunk(cohorts[chunk.cohort], chunk.lanes) for chunk in chunks), reverse=True)[:workers]
    series = max((SERIES_BYTES * chunk.lanes * chunk.steps for chunk in chunks), default=0)
    return PARENT_BYTES + 2 * series + sum(WORKER_BYTES + needed for needed in each)


def refuse_large_model(weights: int, model: Component, itemsize: int, place: Place) -> None:
    """Raise InputError if so many weights of a model cannot fit."""
    there = usable_memory()
    needed = COPIES * FEWEST_LANES * weights * itemsize
    if there is not None and needed > there:
        what = f"{model.name} has {weights:,} weights, and {FEWEST_LANES} trials of it take {_gigabytes(needed)}"
        raise _too_large(place, what, there, SMALLER)


def refuse_large_cohorts(plan: Plan) -> None:
    """Raise InputError if the fewest trials that are trained together cannot fit."""
    there = usable_memory()
    for cohort in plan.cohorts:
        needed, series = _of_chunk(cohort, FEWEST_LANES), FEWEST_LANES * SERIES_BYTES * cohort.steps
        if cohort.is_script or there is None or needed <= there:
            continue
        if 2 * series > needed:
            key = "train.steps" if cohort.trials[0].train.steps else "train.epochs"
            what, remedy = f"the statistics of {FEWEST_LANES} trials of {cohort.steps:,} steps take", FEWER
        else:
            key, what, remedy = "model", f"{FEWEST_LANES} trials take", SMALLER
        raise _too_large(plan.experiment.place(key), f"{what} {_gigabytes(needed)}", there, remedy)


def _too_large(place: Place, what: str, there: int, remedy: str) -> InputError:
    return InputError.at(place, f"{what} of memory, and there are {_gigabytes(there)} for it.", remedy)


def _of_chunk(cohort: Cohort, lanes: int) -> int:
    return lanes * (cohort.lane_bytes + SERIES_BYTES * cohort.steps * (not cohort.is_script))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.3g} GB" if size < 1e12 else f"{size / 1e9:,.0f} GB"
