"""What the next point of a study is: a function of the points before it and of the results that are known."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial

from clipbench.core.trial import Value
from clipbench.planning.contender import Contender
from clipbench.search.samplers_and_pruners import STARTUP, make_sampler, seed_from
from clipbench.search.stored_values import from_stored, to_stored
from clipbench.search.study_copy import StudyCopy
from clipbench.store.json_document import Scalar

ATTEMPTS = 8  # to get a point from the sampler that was not tried before
YAML, PILOT, SEARCHED = "yaml", "pilot", "search"  # the origin of a point
MOST_LISTED = 4096  # a space of at most so many points is searched for an untried one
StoredValues = Mapping[str, Scalar]
FirstPoints = Sequence[tuple[str, StoredValues]]  # origin and values


@dataclass(frozen=True)
class NextPoint:
    """The values of a point, where they come from, and what the sampler notes of it."""

    values: StoredValues
    origin: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


def next_point(
    contender: Contender,
    sampler: str,
    seed: int,
    first: FirstPoints,
    trials: Sequence[FrozenTrial],
    new_copy: Callable[[Sequence[FrozenTrial]], StudyCopy],
) -> NextPoint:
    """Return the first point whose turn it is, or one of the sampler that was not tried before.

    The seed of the sampler depends on the number of the point, and not on how many processes have asked.
    """
    number, tried = len(trials), [stored(contender, trial.params) for trial in trials]
    origin, given = first[number] if number < len(first) else (SEARCHED, None)
    # The first points mostly vary the threshold: other hyperparameters need random points in addition.
    startup = STARTUP + (len(first) if len(contender.hyperparameters) > 1 else 0)
    for attempt in range(ATTEMPTS + 1):
        name = sampler if attempt < ATTEMPTS else "random"  # a model that has converged stays at one point for ever
        draw = make_sampler(name, seed, (number, attempt), startup)
        asked = new_copy(trials).ask(draw, contender.hyperparameters, given)
        values = stored(contender, asked.params)
        if values not in tried:
            break
        origin, given = SEARCHED, _untried(contender, seed, tried)
    return NextPoint(values, origin, asked.system_attrs)


def stored(contender: Contender, values: Mapping[str, Value]) -> dict[str, Scalar]:
    """Return the values of a point as they are trained and stored: numbers have few digits."""
    known = {param: to_stored(values[param.path]) for param in contender.hyperparameters}
    return {param.path: to_stored(from_stored(param, value)) for param, value in known.items()}


def _untried(contender: Contender, seed: int, tried: Sequence[StoredValues]) -> StoredValues | None:
    """Return an untried point if the space is small: a sampler may suggest the same point again and again."""
    if (contender.size or MOST_LISTED + 1) > MOST_LISTED:
        return None
    params = contender.hyperparameters
    each = [param.choices or tuple(range(int(param.low), int(param.high) + 1)) for param in params]
    paths = [param.path for param in params]
    points = (stored(contender, dict(zip(paths, values, strict=True))) for values in itertools.product(*each))
    untried = [values for values in points if values not in tried]
    return random.Random(seed_from(seed, len(tried))).choice(untried) if untried else None
