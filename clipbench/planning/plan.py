"""What is to be trained: trials, grouped into cohorts, cut into chunks that fit a cache or a device."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clipbench.config import Experiment
from clipbench.core.trial import Trial, digest

# Weights, gradients, absolute gradients, optimizer state and activations of a chunk together: about what a core
# keeps close. A constant, and not read from the machine, so that the same plan is cut the same way everywhere.
CACHE_BYTES = 12 * 2**20
FEWEST_LANES, MOST_LANES = 4, 32
# A chunk keeps the statistics of all its steps until it is saved: some 200 bytes for each step of each lane.
MOST_LANE_STEPS, GPU_MOST_LANE_STEPS = 2**22, 2**24
# On a GPU more lanes cost next to nothing until it is full.
GPU_BYTES = 4 * 2**30
GPU_MOST_LANES = 1024


@dataclass(frozen=True)
class Cohort:
    """Trials that share data, model and training options, and so can be trained as one tensor program."""

    id: str
    trials: tuple[Trial, ...]
    parameters: int
    lane_bytes: int  # what one lane keeps in memory while it trains
    steps: int  # of each trial
    loop_reason: str = ""  # why it is trained one lane after another; empty if it is not


@dataclass(frozen=True)
class Chunk:
    """The trials that one worker trains together, and the file name of their records."""

    cohort: str
    trials: tuple[Trial, ...]
    lanes: int  # padded to this many, so that chunks of a cohort have one shape
    steps: int
    attempt: int = 1

    @property
    def stem(self) -> str:
        return f"{self.cohort}-{digest(sorted(trial.id for trial in self.trials), 8)}"

    @property
    def lane_steps(self) -> int:
        return self.steps * len(self.trials)

    def again(self) -> Chunk:
        return replace(self, attempt=self.attempt + 1)

    def halves(self) -> tuple[Chunk, Chunk]:
        """Arms of a kind stay together, so that what is wrong with one of them is soon alone."""
        ordered = sorted(self.trials, key=lambda trial: (repr(trial.optimizer), trial.strategy, trial.arm))
        lanes = -(-len(ordered) // 2)
        parts = (tuple(ordered[:lanes]), tuple(ordered[lanes:]))
        return tuple(replace(self, trials=part, lanes=lanes) for part in parts)  # type: ignore[return-value]


@dataclass(frozen=True)
class Plan:
    """An experiment with its data and models looked at: everything that can be said before training."""

    experiment: Experiment
    cohorts: tuple[Cohort, ...]
    notes: tuple[str, ...] = ()
    higher: Mapping[str, bool] = field(default_factory=dict)  # of each metric: is higher better?
    norm_rules: tuple[str, ...] = ()  # strategies whose threshold is compared with the norm of the whole gradient
    validates: bool = False  # whether there are validation data everywhere
    sources: Mapping[str, str] | None = None  # digests of the files it was made from; None: nobody knows which

    @property
    def trials(self) -> tuple[Trial, ...]:
        return tuple(trial for cohort in self.cohorts for trial in cohort.trials)

    @property
    def metric(self) -> str:
        """What arms are compared by, if the YAML does not say."""
        if self.experiment.report.metric:
            return self.experiment.report.metric
        names = [name for name in ("accuracy", "mse") if name in self.higher]
        return f"test/{names[0]}" if names else "train/loss"

    def chunks(self, done: Collection[str], workers: int, device: str) -> list[Chunk]:
        """What is missing, the longest work first so that no worker is left alone with it at the end."""
        cut = [
            chunk
            for cohort in self.cohorts
            for chunk in _cut(cohort, [t for t in cohort.trials if t.id not in done], workers, device)
        ]
        return sorted(cut, key=lambda chunk: -chunk.steps)


def most_lanes(cohort: Cohort, device: str) -> int:
    """How many lanes train well together."""
    if device == "cpu":
        fitting = min(CACHE_BYTES // cohort.lane_bytes, MOST_LANE_STEPS // cohort.steps)
        return max(FEWEST_LANES, min(MOST_LANES, fitting))
    fitting = min(GPU_BYTES // cohort.lane_bytes, GPU_MOST_LANE_STEPS // cohort.steps)
    return max(FEWEST_LANES, min(GPU_MOST_LANES, fitting))


def _cut(cohort: Cohort, missing: Sequence[Trial], workers: int, device: str) -> Iterator[Chunk]:
    """Whole seeds together, since lanes of a seed share their batches; as many chunks for each worker."""
    if not missing:
        return
    share = -(-len(missing) // workers)  # a worker without work helps nobody
    most = min(most_lanes(cohort, device), max(FEWEST_LANES, share))
    seeds = _by_seed(missing)
    arms = max(map(len, seeds))
    if arms > most // 2:
        size = -(-arms // -(-arms // most))
        pieces = [seed[start : start + size] for seed in seeds for start in range(0, len(seed), size)]
    else:
        chunks = -(-len(seeds) // (most // arms))
        together = -(-len(seeds) // (-(-chunks // workers) * workers))
        pieces = [list(itertools.chain(*seeds[at : at + together])) for at in range(0, len(seeds), together)]
    lanes = max(map(len, pieces))
    for trials in pieces:
        yield Chunk(cohort.id, tuple(trials), lanes, cohort.steps)


def _by_seed(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Arms of a kind stand together, so that a cut leaves them together."""
    seeds: dict[int, list[Trial]] = defaultdict(list)
    for trial in trials:
        seeds[trial.seed].append(trial)
    return [sorted(group, key=lambda trial: (repr(trial.optimizer), trial.clip.name)) for group in seeds.values()]
