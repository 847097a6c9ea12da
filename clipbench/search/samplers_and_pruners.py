"""Optuna's samplers and pruners with every option said: their defaults move from one release to the next."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler

from clipbench.core.trial import digest
from clipbench.errors import InputError, Place
from clipbench.planning.contender import Hyperparameter

# Points that are drawn at random before a model of the objective says where to look; those of the YAML count.
STARTUP = 8
# Before so many points were trained to the end there is no median to stop others by.
FEWEST_FINISHED = 5
FEWEST_BESIDE = 3  # of them that know the epoch
PATIENCE = 4  # this part of all epochs is trained before anything is stopped: what learns slowly may end best
FEWEST_PAIRS = 4  # of a signed-rank test at 0.1, one-sided: with three no result is that rare
WILCOXON_LEVEL = 0.1
REDUCTION = 3


@contextmanager
def quietly() -> Iterator[None]:
    """Without Optuna's warnings that say nothing to a user: what it calls experimental has been there for years, and a
    sampler that does not know constraints learns from the penalty what they would tell it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Constraints have been set, but")
        warnings.filterwarnings("ignore", "The constraint value is ignored because")  # killed amid telling
        yield


@quietly()
def sampler(name: str, seed: int, asked: int, startup: int = STARTUP) -> BaseSampler:
    """A sampler for the next points of a study in which `asked` points were asked for before.

    A sampler that is made again with its first seed would draw its first points again. Before there are `startup`
    points it draws at random.
    """
    here = number(seed, asked)
    if name == "tpe":
        return TPESampler(
            n_startup_trials=startup,
            n_ei_candidates=24,
            multivariate=True,
            group=False,
            constant_liar=True,  # points under way count as bad ones: those of a batch lie apart
            seed=here,
        )
    if name == "gp":
        return GPSampler(n_startup_trials=startup, independent_sampler=RandomSampler(seed=here), seed=here)
    if name == "qmc":  # one sequence, whose place the study remembers
        fixed = number(seed, 0)
        return QMCSampler(
            qmc_type="sobol",
            scramble=True,
            seed=fixed,
            independent_sampler=RandomSampler(seed=here),
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
        )
    if name == "cmaes":
        return CmaEsSampler(
            n_startup_trials=startup,
            independent_sampler=RandomSampler(seed=here),
            warn_independent_sampling=False,
            seed=here,
            consider_pruned_trials=False,
            use_separable_cma=False,
            with_margin=False,
            lr_adapt=False,
        )
    return RandomSampler(seed=here)


@quietly()
def pruner(name: str, epochs: int | None) -> BasePruner:
    """What stops points early; of `wilcoxon` a step is a seed, of the others an epoch, counted from 1.

    `epochs` is None where training is counted in steps.
    """
    if name == "median":
        first = max(2, math.ceil((epochs or 0) / PATIENCE))
        return MedianPruner(
            n_startup_trials=FEWEST_FINISHED, n_warmup_steps=first, interval_steps=1, n_min_trials=FEWEST_BESIDE
        )
    if name == "hyperband":
        return HyperbandPruner(
            min_resource=1, max_resource=epochs or "auto", reduction_factor=REDUCTION, bootstrap_count=0
        )
    if name == "wilcoxon":
        return WilcoxonPruner(p_threshold=WILCOXON_LEVEL, n_startup_steps=FEWEST_PAIRS)
    return NopPruner()


def number(*content: object) -> int:
    """A seed made of anything."""
    return int(digest(list(content), 8), 16)


def check_sampler(name: str, hyperparameters: Sequence[Hyperparameter], place: Place) -> None:
    """Whether a sampler can search these hyperparameters; raises InputError."""
    if name != "cmaes":
        return
    numbers = [param for param in hyperparameters if not param.choices]
    if len(numbers) < 2:
        words = ", ".join(param.path for param in hyperparameters)
        text = f"cmaes needs two numbers to search, and here is {words}."
        raise InputError.at(place, text, "Write sampler: tpe, or sampler: gp.")
    try:
        import cmaes  # noqa: F401 - Optuna asks for it late, amid a search
    except ImportError:
        text = "cmaes is not installed."
        raise InputError.at(place, text, "Type `pip install 'clipbench[cmaes]'`.") from None
