"""What a report says, as plain data: the tree from which every format is written. Sentences are in `reporting`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from clipbench.config.claim_language import Expectation
from clipbench.config.sections import Claim
from clipbench.core import measures
from clipbench.errors import Place
from clipbench.plugins.registry import UNCLIPPED
from clipbench.stats import Estimate, WinTieLoss
from clipbench.store.sweep_file import SearchedContender, SweepDocument

EXPERIMENT = Place("the experiment", key="report.metric")


@dataclass(frozen=True)
class ReportOptions:
    """What a report compares: the `report` section of the YAML, and what is known from the plan alone."""

    metric: str | None = None  # None: test/accuracy, else test/mse, test/loss or train/loss, as measured
    baseline: str = UNCLIPPED  # a strategy, or an arm such as `norm@1.0`
    margin: float | None = None  # differences within +-margin are negligible; in the unit of the metric
    higher: Mapping[str, bool] = field(default_factory=dict)  # of the user's own metrics: whether higher is better
    planned: Mapping[str, str] | None = None  # id -> description, for each trial of the current YAML
    place: Place = EXPERIMENT
    claims: tuple[tuple[Claim, Expectation], ...] = ()
    tuned: bool = False  # also compare each strategy at its best learning rate
    swept: SweepDocument | None = None  # the search that found the arms
    examples: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # of each part, by the data's fingerprint
    norm_rules: tuple[str, ...] = ()  # strategies whose threshold is compared with the norm of the whole gradient
    constants: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # measures of a constant, by fingerprint


@dataclass(frozen=True)
class Metric:
    """The metric that is compared, and the validation metric that selects thresholds."""

    name: str
    higher_is_better: bool
    criterion: str | None  # None: there is no validation data, so no threshold is selected
    criterion_sign: int = 1  # multiplied by it, a higher criterion is better

    @property
    def sign(self) -> int:
        """The factor that makes higher values better."""
        return 1 if self.higher_is_better else -1

    @property
    def is_share(self) -> bool:
        """Whether it is shown in per cent, with differences in percentage points."""
        return measures.unit(self.name) == "%"


@dataclass(frozen=True)
class TargetEpochs:
    """Epochs to the target. In the median, a trial that never reached it counts as later than all others."""

    median: float  # infinite if at least half of the trials never reached it
    reached: int
    trials: int
    restricted: float = math.nan  # restricted mean: a trial that never reached it counts with all its epochs


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class Contrast:
    """The comparison of an arm with the baseline, paired by seed; positive is better."""

    difference: Estimate  # over the seeds on which both finished
    dz: float
    rank_biserial: float
    score: WinTieLoss
    pairs: int  # seeds that both have, diverged ones included
    p: float = math.nan  # sign-flip test; NaN if the arm is not tested
    p_choice: float = math.nan  # the test repeats the choice of what seems better: of the threshold, or of the baseline
    p_holm: float = math.nan  # p_choice, corrected for all rows of the table
    p_overall: float = math.nan  # p_choice, corrected for all rows of all tables; NaN if there is one table
    p_unchosen: float = math.nan  # p, corrected for all rows of the table
    seeds_needed: float = math.nan  # for 80 % power, if the difference stays the same; infinite if no number would do
    seeds_needed_low: float = math.nan  # if it is at the end of its interval that is closer to zero
    bootstrap: Estimate = NOTHING  # the difference with its BCa bootstrap interval
    p_wilcoxon: float = math.nan  # signed-rank test, not corrected
    p_diverged: float = math.nan  # Fisher's exact test of the numbers of diverged seeds
    p_reach: float = math.nan  # log-rank test of the epochs to the target
    nested: float = math.nan  # mean difference if the other seeds choose the threshold of each seed

    @property
    def differing(self) -> int:
        """The pairs that differ. Only they can make a sign-flip test significant."""
        return self.score.wins + self.score.losses


@dataclass(frozen=True)
class ArmResult:
    """One arm of a setting: a strategy at one threshold."""

    arm: str
    strategy: str
    threshold: float | None
    value: Estimate
    criterion: float
    diverged: int
    trials: int
    fired_share: float
    fraction: float
    grad_norm: float
    step_us: float
    reach: TargetEpochs | None
    contrast: Contrast | None  # None for the baseline, and where there is none
    shown: bool  # in the main table: the strategy's chosen threshold, or every threshold if none was chosen
    verdict: str
    flags: tuple[str, ...]
    ids: tuple[str, ...] = ()  # of its trials
    tuning: str = ""  # `lr=0.1`, where each strategy has its own
    nonfinite: int = 0  # of the diverged ones, those that finished without a finite metric or criterion
    is_candidate: bool = True  # False: it lacks seeds that other thresholds of its strategy have

    @property
    def short(self) -> str:
        """The arm's name without what was tuned."""
        return self.arm.removesuffix(f" ({self.tuning})")


@dataclass(frozen=True)
class VerdictChange:
    """An arm whose verdict would be another if diverged trials were left out instead of ranked last."""

    arm: str
    verdict: str
    arm_without: str  # the arm that would then be shown for its strategy; empty if there is none
    verdict_without: str


@dataclass(frozen=True)
class EarlyStops:
    """How many trials of a setting stopped before their last epoch, and after which epochs."""

    stopped: int
    trials: int
    first: int
    last: int


@dataclass(frozen=True)
class Unpaired:
    """What the arms of some seeds did not have in common, though only the rule should differ."""

    column: str  # `initial_weights` or `first_batches`
    seeds: tuple[int, ...]
    of: int  # number of all seeds


@dataclass(frozen=True)
class Setting:
    """One comparison: all arms on the same data, model, optimizer and training options."""

    axes: Mapping[str, str]  # only what differs between the settings of the experiment
    words: str  # "digits with mlp/sgd"
    metric: Metric
    baseline: str | None  # label of the baseline arm; None if there is none
    margin: float | None
    seeds: int
    rows: tuple[ArmResult, ...]  # every arm: the baseline first, then by strategy and threshold
    main: tuple[ArmResult, ...]  # what is shown first: the baseline, then from the best to the worst
    otherwise: tuple[VerdictChange, ...] | None = None  # None if nothing diverged
    target: str = ""  # `val/accuracy 0.95`, where one is set
    tuned: tuple[str, ...] = ()  # what was tuned for each strategy, such as `lr`
    searched: bool = False  # the arms were found by a search, and trained on seeds that it did not use
    equal: str = ""  # what was searched, but is the same for all arms of this setting: `lr`
    wanted_baseline: str = UNCLIPPED  # by `report.baseline`; `baseline` is None if it cannot be used
    early_stops: EarlyStops | None = None
    averages_folds: bool = False
    unpaired: tuple[Unpaired, ...] = ()
    constant: float = math.nan  # the metric of the best constant prediction
    example_steps: Mapping[str, float] = field(default_factory=dict)  # what one example adds to metric and criterion

    @property
    def label(self) -> str:
        best = (f"each at its best {' and '.join(self.tuned)}",) if self.tuned else ()
        return ", ".join((*best, *(f"{axis}={value}" for axis, value in self.axes.items())))

    @property
    def is_choice(self) -> bool:
        """Whether its arms are chosen from other settings of the report."""
        return bool(self.tuned) and not self.searched

    @property
    def choice(self) -> str:
        """The words for what was chosen for each strategy on validation data."""
        return " and ".join((*self.tuned, "threshold"))

    @property
    def versus(self) -> str:
        """The baseline for the head of a column."""
        baseline = next((row.short for row in self.rows if row.arm == self.baseline), None)
        return baseline or self.baseline or ""


@dataclass(frozen=True)
class ClaimResult:
    """A claim of the experiment, and what the trials show about it."""

    says: str
    expect: str
    metric: Metric | None  # None where it could not be tested
    verdict: str
    difference: Estimate = NOTHING  # left minus right, turned so that positive is better
    p: float = math.nan
    p_holm: float = math.nan  # over the claims of its family
    pairs: int = 0
    same_training: bool = False  # both sides ended with the same weights, where chosen
    by_divergence: int = 0  # the pairs of which one side diverged, or both
    family: str = ""  # the claims among which Holm's method corrects p, and their number
    family_size: int = 1
    seeds_needed: float = math.nan  # of an inconclusive one, as in `Contrast`
    seeds_needed_low: float = math.nan
    test: str = ""  # what was tested: one of the tests of `claims`; empty if nothing could be tested
    held: int = 0  # of `cases`: seeds, or seeds of every case where the claim says `always`
    cases: int = 0
    margin: float = 0.0
    untestable: str = ""  # why it could not be tested


@dataclass(frozen=True)
class Confirmation:
    """The score by which the search chose a point, and the same metric on seeds that the search did not use."""

    measure: Metric
    searched: float  # mean over the search seeds; NaN where nothing was searched
    confirmed: Estimate  # over the fresh seeds
    bias: Estimate  # searched minus confirmed, positive if the search was optimistic; in the unit of the metric
    verdict: str


@dataclass(frozen=True)
class ContenderResult:
    """What the search found for one contender, and its confirmation on fresh seeds."""

    contender: SearchedContender
    confirmations: tuple[Confirmation, ...]  # one an objective
    fresh: int  # seeds on which it was confirmed
    diverged: int  # of them
    budget: float  # share of all epochs that the search trained


@dataclass(frozen=True)
class SearchResult:
    """The search behind the arms of a report."""

    swept: SweepDocument
    found: tuple[ContenderResult, ...]  # each setting's baseline first, then from the best to the worst

    @property
    def measures(self) -> tuple[Metric, ...]:
        return tuple(Metric(each.name, each.higher, None) for each in self.swept.objectives)


@dataclass(frozen=True)
class LeftOut:
    """Trials that are in no table."""

    failed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # trials of each error: `norm@1.0 seed 3`
    pruned: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # of the current YAML, not trained yet
    others: int = 0  # in the store, but not of the current YAML


@dataclass(frozen=True)
class Report:
    """Every setting of one experiment, its claims, and the search that found its arms."""

    name: str
    settings: tuple[Setting, ...]
    claims: tuple[ClaimResult, ...] = ()
    search: SearchResult | None = None
    left_out: LeftOut = LeftOut()
    is_empty: bool = False  # the store holds no trial of the experiment
    is_untuned: bool = False  # `report.tuned` was asked for, but there was nothing to tune
