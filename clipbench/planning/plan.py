"""What is trained: trials, grouped into cohorts, which are cut into chunks that fit a CPU cache or a GPU."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clipbench.config import Experiment
from clipbench.core.trial import Trial, digest

# Size limit of a chunk's weights, gradients, optimizer state and activations together: about the cache of a core.
# A constant, so that a plan is cut into the same chunks on every machine.
CACHE_BYTES = 12 * 2**20
FEWEST_LANES, MOST_LANES = 4, 32
# A chunk keeps the statistics of all its steps in memory until it is saved: about 200 bytes per step and lane.
MOST_LANE_STEPS, GPU_MOST_LANE_STEPS = 2**22, 2**24
# On a GPU, more lanes cost almost nothing until its memory is full; what the operators of a step need beside the
# tensors of the lanes is not known before.
GPU_BYTES, GPU_SHARE = 4 * 2**30, 0.5
GPU_MOST_LANES = 1024


@dataclass(frozen=True)
class Cohort:
    """Trials with the same data, model and training options, which can be trained as one tensor program."""

    id: str
    trials: tuple[Trial, ...]
    parameters: int
    lane_bytes: int  # memory of one lane during training
    steps: int  # of each trial
    loop_reason: str = ""  # why its lanes are trained one after another; empty if they are vectorised
    gpu_bytes: int = GPU_BYTES  # memory for a chunk on a GPU

    @property
    def is_script(self) -> bool:
        return self.trials[0].script is not None


@dataclass(frozen=True)
class Chunk:
    """The trials that one worker trains together, and the file name of their records."""

    cohort: str
    trials: tuple[Trial, ...]
    lanes: int  # number of lanes after padding; equal for all chunks of a cohort
    steps: int
    loop_reason: str = ""  # of the cohort
    attempt: int = 1

    @property
    def stem(self) -> str:
        return f"{self.cohort}-{digest(sorted(trial.id for trial in self.trials), 8)}"

    @property
    def is_script(self) -> bool:
        """Whether each of its trials is a process of its own."""
        return self.trials[0].script is not None

    @property
    def lane_steps(self) -> int:
        return self.steps * len(self.trials)

    def again(self) -> Chunk:
        return replace(self, attempt=self.attempt + 1)

    def halves(self) -> tuple[Chunk, Chunk]:
        """Split the trials in two, similar arms together, so that a faulty arm is isolated after few splits."""
        ordered = sorted(self.trials, key=lambda trial: (repr(trial.optimizer), trial.strategy, trial.arm))
        lanes = -(-len(ordered) // 2)
        parts = (tuple(ordered[:lanes]), tuple(ordered[lanes:]))
        return tuple(replace(self, trials=part, lanes=lanes) for part in parts)  # type: ignore[return-value]


@dataclass(frozen=True)
class Plan:
    """An experiment whose data are loaded and whose models are tried: everything known before training."""

    experiment: Experiment
    cohorts: tuple[Cohort, ...]
    notes: tuple[str, ...] = ()
    higher: Mapping[str, bool] = field(default_factory=dict)  # for each metric, whether higher is better
    norm_rules: tuple[str, ...] = ()  # strategies whose threshold is compared with the norm of the whole gradient
    examples: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # of each part, by the data's fingerprint
    constants: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # measures of a constant, by fingerprint
    validates: bool = False  # whether every data set has a validation part
    sources: Mapping[str, str] | None = None  # digests of the files that it depends on; None if unknown

    @property
    def trials(self) -> tuple[Trial, ...]:
        return tuple(trial for cohort in self.cohorts for trial in cohort.trials)

    @property
    def metric(self) -> str:
        """The measure by which arms are compared: `report.metric`, or a default."""
        if self.experiment.report.metric:
            return self.experiment.report.metric
        if self.experiment.is_script:  # what it measures shows when it runs
            return "test/loss"
        names = [name for name in ("accuracy", "mse") if name in self.higher]
        return f"test/{names[0]}" if names else "train/loss"

    def missing(self, done: Collection[str]) -> tuple[int, int]:
        """Return the number of trials that are not done, and of their steps together, without those of scripts."""
        open_ones = [(cohort, sum(trial.id not in done for trial in cohort.trials)) for cohort in self.cohorts]
        steps = sum(trials * cohort.steps for cohort, trials in open_ones if not cohort.is_script)
        return sum(trials for _, trials in open_ones), steps

    def for_gpu(self, free: int) -> Plan:
        """Return the plan for workers that have so many free bytes each on a GPU."""
        share = int(GPU_SHARE * free)
        return replace(self, cohorts=tuple(replace(cohort, gpu_bytes=share) for cohort in self.cohorts))

    def chunks(
        self, done: Collection[str], workers: int, device: str, begun: Iterable[Sequence[str]] = ()
    ) -> list[Chunk]:
        """Return the chunks of all trials that are not done, the longest first, so that all workers end together.

        Chunks that were `begun` come before all others. Each is the ids of its lanes, of which some may be the same.
        """
        first: list[Chunk] = []
        found: list[Chunk] = []
        again = list(begun)
        for cohort in self.cohorts:
            missing = {trial.id: trial for trial in cohort.trials if trial.id not in done}
            for lanes in again:
                ids = dict.fromkeys(lanes)
                if ids and ids.keys() <= missing.keys():
                    trials = tuple(missing.pop(each) for each in ids)
                    first.append(Chunk(cohort.id, trials, len(lanes), cohort.steps, cohort.loop_reason))
            found += _cut(cohort, list(missing.values()), workers, device)
        return [*first, *sorted(found, key=lambda chunk: -chunk.steps)]


def most_lanes(cohort: Cohort, device: str) -> int:
    """Return the maximum number of lanes of a chunk."""
    if cohort.is_script:
        return 1
    if device == "cpu":
        fitting = min(CACHE_BYTES // cohort.lane_bytes, MOST_LANE_STEPS // cohort.steps)
        return max(FEWEST_LANES, min(MOST_LANES, fitting))
    fitting = min(cohort.gpu_bytes // cohort.lane_bytes, GPU_MOST_LANE_STEPS // cohort.steps)
    return max(FEWEST_LANES, min(GPU_MOST_LANES, fitting))


def _cut(cohort: Cohort, missing: Sequence[Trial], workers: int, device: str) -> Iterator[Chunk]:
    """Yield chunks of whole seeds, whose lanes share their batches, with equally many chunks for each worker."""
    if not missing:
        return
    share = -(-len(missing) // workers)  # use all workers
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
        yield Chunk(cohort.id, tuple(trials), lanes, cohort.steps, cohort.loop_reason)


def _by_seed(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Group trials by seed, similar arms next to each other, so that a chunk holds similar arms."""
    seeds: dict[int, list[Trial]] = defaultdict(list)
    for trial in trials:
        seeds[trial.seed].append(trial)
    return [sorted(group, key=lambda trial: (repr(trial.optimizer), trial.clip.name)) for group in seeds.values()]
