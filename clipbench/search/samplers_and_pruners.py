"""Optuna's samplers and pruners with all options given: the defaults change between versions of Optuna."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler

from clipbench.core.trial import digest
from clipbench.errors import InputError, Place
from clipbench.planning.contender import Hyperparameter
from clipbench.search.cmaes_sampler import PlainCmaEsSampler

STARTUP = 8  # random points before the sampler models the objective, those of the YAML included
# Of the median pruner:
STARTUP_TRIALS = 5  # points trained to the end before it prunes
FEWEST_AT_EPOCH = 3  # points with a score at the epoch
WARM_UP = 4  # one epoch in so many is trained before it prunes: slow learners may end best
# Of the Wilcoxon pruner: a one-sided signed-rank test of three pairs cannot reach a p-value of 0.1.
FEWEST_PAIRS = 4
WILCOXON_LEVEL = 0.1
REDUCTION = 3  # of Hyperband: one point in so many goes on at each rung


@contextmanager
def without_warnings() -> Iterator[None]:
    """Suppress warnings of Optuna about experimental features, samplers that ignore constraints, and repetitions.

    The scores of diverged points hold a penalty, so that these samplers avoid them too.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Constraints have been set, but")
        # Of a point whose process was killed while it stored the result.
        warnings.filterwarnings("ignore", "The constraint value is ignored because")
        yield


@without_warnings()
def make_sampler(name: str, seed: int, draw: tuple[int, int], startup: int = STARTUP) -> BaseSampler:
    """Return a sampler for one point.

    `draw` is the number of the point and of the attempt: with the same seed, each sampler would suggest the same. The
    first `startup` points are random.
    """
    current = seed_from(seed, *draw)
    if name == "tpe":
        return TPESampler(
            n_startup_trials=startup,
            n_ei_candidates=24,
            multivariate=True,
            group=False,
            constant_liar=True,  # running points count as bad ones, so that the points of a batch differ
            seed=current,
        )
    if name == "gp":
        return GPSampler(n_startup_trials=startup, independent_sampler=RandomSampler(seed=current), seed=current)
    if name == "qmc":  # one sequence; the study stores the position in it
        fixed = seed_from(seed, 0)
        return QMCSampler(
            qmc_type="sobol",
            scramble=True,
            seed=fixed,
            independent_sampler=RandomSampler(seed=current),
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
        )
    if name == "cmaes":
        return PlainCmaEsSampler(
            n_startup_trials=startup,
            independent_sampler=RandomSampler(seed=current),
            warn_independent_sampling=False,
            seed=current,
            consider_pruned_trials=False,
            use_separable_cma=False,
            with_margin=False,
            lr_adapt=False,
        )
    return RandomSampler(seed=current)


@without_warnings()
def make_pruner(name: str, epochs: int | None) -> BasePruner:
    """Return a pruner. A step of `wilcoxon` is a seed, of the others an epoch, counted from 1.

    `epochs` is None if the length of training is given in steps.
    """
    if name == "median":
        first = max(2, math.ceil((epochs or 0) / WARM_UP))
        return MedianPruner(
            n_startup_trials=STARTUP_TRIALS, n_warmup_steps=first, interval_steps=1, n_min_trials=FEWEST_AT_EPOCH
        )
    if name == "hyperband":
        return HyperbandPruner(
            min_resource=1, max_resource=epochs or "auto", reduction_factor=REDUCTION, bootstrap_count=0
        )
    if name == "wilcoxon":
        return WilcoxonPruner(p_threshold=WILCOXON_LEVEL, n_startup_steps=FEWEST_PAIRS)
    return NopPruner()


def seed_from(*content: object) -> int:
    """Return a seed that is a hash of the content."""
    return int(digest(list(content), 8), 16)


def check_sampler(name: str, hyperparameters: Sequence[Hyperparameter], place: Place) -> None:
    """Raise InputError if a sampler cannot search these hyperparameters."""
    if name != "cmaes":
        return
    numbers = [param for param in hyperparameters if not param.choices]
    if len(numbers) < 2:
        words = ", ".join(param.path for param in hyperparameters)
        text = f"cmaes needs at least two numeric hyperparameters, got {words}."
        raise InputError.at(place, text, "Write sampler: tpe, or sampler: gp.")
    try:
        import cmaes  # noqa: F401 - Optuna imports it only during the search
    except ImportError:
        text = "cmaes is not installed."
        raise InputError.at(place, text, "Run `pip install 'clipbench[cmaes]'`.") from None
