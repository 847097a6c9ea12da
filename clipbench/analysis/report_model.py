"""What a report says, as plain data: the tree that every format is written from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clipbench.core import measures
from clipbench.errors import Place
from clipbench.stats import Estimate, WinTieLoss
from clipbench.store.sweep_file import SearchedContender, SweepDocument

if TYPE_CHECKING:
    from clipbench.config.claim_language import Expectation
    from clipbench.config.sections import Claim

EXPERIMENT = Place("the experiment", key="report.metric")


@dataclass(frozen=True)
class ReportOptions:
    """What a report is asked for: the `report` section of the YAML, and what only the plan knows."""

    metric: str | None = None  # None: test/accuracy, else test/mse, test/loss or train/loss, as measured
    baseline: str = "none"  # a strategy, or an arm such as `norm@1.0`
    margin: float | None = None  # differences within +-margin do not matter; in the metric's own unit
    higher: Mapping[str, bool] = field(default_factory=dict)  # of the user's metrics: is higher better?
    planned: Mapping[str, str] | None = None  # id -> words for each trial of the YAML as it is now
    place: Place = EXPERIMENT
    claims: tuple[tuple[Claim, Expectation], ...] = ()
    tuned: bool = False  # compare each strategy at its best learning rate too
    swept: SweepDocument | None = None  # the search that found the arms
    norm_rules: tuple[str, ...] = ()  # strategies whose threshold is compared with the norm of the whole gradient


@dataclass(frozen=True)
class Metric:
    """What is compared, and the validation measure by which thresholds are chosen."""

    name: str
    higher_is_better: bool
    criterion: str | None  # None: there is no validation data, nothing is chosen
    criterion_sign: int = 1  # turns the criterion so that more is better

    @property
    def sign(self) -> int:
        """Turns values so that more is better."""
        return 1 if self.higher_is_better else -1

    @property
    def is_share(self) -> bool:
        """Shown in per cent, its differences in percentage points."""
        return measures.unit(self.name) == "%"


@dataclass(frozen=True)
class TargetEpochs:
    """Epochs to the target. The median counts a trial that never got there as later than all others."""

    median: float  # infinite where half of the trials or more never reached it
    reached: int
    trials: int
    restricted: float = math.nan  # the mean, where one that never got there counts with all its epochs


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class Contrast:
    """An arm against the baseline, paired by seed; positive is better."""

    difference: Estimate  # over the seeds on which both finished
    dz: float
    rank_biserial: float
    score: WinTieLoss
    pairs: int  # seeds that both have, diverged ones among them
    p: float = math.nan  # sign-flip test; NaN where the arm is not in the family
    p_holm: float = math.nan
    p_choice: float = math.nan  # with the choice of threshold repeated in the test, after Holm
    p_baseline: float = math.nan  # with the choice among the baseline's repeated, after Holm
    bootstrap: Estimate = NOTHING  # of the difference, by BCa
    p_wilcoxon: float = math.nan  # signed ranks, not corrected
    p_diverged: float = math.nan  # Fisher's exact test of both shares of diverged seeds
    p_reach: float = math.nan  # log-rank test of the epochs to the target
    nested: float = math.nan  # the mean difference where each seed's threshold is chosen by the other seeds


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
    shown: bool  # in the main table: the strategy's best threshold, or nothing was chosen
    verdict: str
    flags: tuple[str, ...]
    ids: tuple[str, ...] = ()  # of its trials
    tuning: str = ""  # `lr=0.1`, where each strategy has its own

    @property
    def short(self) -> str:
        """The arm's name without what was tuned."""
        return self.arm.removesuffix(f" ({self.tuning})")


@dataclass(frozen=True)
class VerdictChange:
    """A row of the comparison whose verdict depends on the rule that a diverged trial is worse than any other."""

    arm: str
    verdict: str
    arm_without: str  # what would stand for its strategy if diverged trials were left out; empty if nothing
    verdict_without: str


@dataclass(frozen=True)
class Setting:
    """One comparison: all arms on the same data, model, optimizer and training options."""

    axes: Mapping[str, str]  # only what varies between the settings of the experiment
    words: str  # "digits with mlp/sgd"
    metric: Metric
    baseline: str | None  # label of the baseline's arm; None where there is none
    margin: float | None
    seeds: int
    rows: tuple[ArmResult, ...]  # every arm: the baseline first, then by strategy and threshold
    main: tuple[ArmResult, ...]  # what is shown first: the baseline, then from the best to the worst
    headline: str
    notes: tuple[str, ...]
    otherwise: tuple[VerdictChange, ...] | None = None  # verdicts that divergence decides; None where nothing diverged
    target: str = ""  # `val/accuracy 0.95`, where one is set
    tuned: tuple[str, ...] = ()  # axes on which each strategy stands at its own best, such as `lr`
    searched: bool = False  # the arms are what a search found, on seeds that it never saw
    equal: str = ""  # what was searched, and yet is the same for all arms here: `lr`

    @property
    def label(self) -> str:
        best = (f"each at its best {' and '.join(self.tuned)}",) if self.tuned else ()
        return ", ".join((*best, *(f"{axis}={value}" for axis, value in self.axes.items())))

    @property
    def is_choice(self) -> bool:
        """Whether its arms are chosen from other settings of the report, and so add no trials."""
        return bool(self.tuned) and not self.searched

    @property
    def choice(self) -> str:
        """What was chosen for each strategy on validation data."""
        return " and ".join((*self.tuned, "threshold"))

    @property
    def versus(self) -> str:
        """The baseline for the head of a column."""
        baseline = next((row.short for row in self.rows if row.arm == self.baseline), None)
        return baseline or self.baseline or ""


@dataclass(frozen=True)
class ClaimResult:
    """A claim of the experiment, and what the trials say about it."""

    says: str
    expect: str
    metric: Metric | None  # None where it could not be tested
    verdict: str
    reason: str
    difference: Estimate  # left minus right, turned so that positive is better
    p: float
    p_holm: float  # over all claims
    pairs: int
    seeds_needed: float  # of an inconclusive one, for 80 % power; infinite where no number would do


@dataclass(frozen=True)
class Confirmation:
    """The score by which the search chose a point, beside the same measure on seeds that the search never saw."""

    measure: Metric
    searched: float  # mean over the search seeds; NaN where nothing was searched
    confirmed: Estimate  # over the fresh seeds
    optimism: Estimate  # by how much the search promised too much, in the measure's own unit
    verdict: str


@dataclass(frozen=True)
class Flag:
    """Something to be aware of, and what to type where that helps."""

    words: str
    remedy: str = ""


@dataclass(frozen=True)
class ContenderResult:
    """What the search found of one contender, and what of it held."""

    contender: SearchedContender
    promises: tuple[Confirmation, ...]  # one an objective
    fresh: int  # seeds on which it was confirmed
    diverged: int  # of them
    budget: float  # share of all epochs that the search trained
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class SearchResult:
    """The search behind the arms of a report."""

    swept: SweepDocument
    found: tuple[ContenderResult, ...]  # each setting's baseline first, then from the best to the worst
    headline: str
    notes: tuple[str, ...]

    @property
    def measures(self) -> tuple[Metric, ...]:
        return tuple(Metric(each.name, each.higher, None) for each in self.swept.objectives)


@dataclass(frozen=True)
class Report:
    """Every setting of one experiment, and what must be said about the trials as a whole."""

    name: str
    settings: tuple[Setting, ...]
    notes: tuple[str, ...]
    claims: tuple[ClaimResult, ...] = ()
    search: SearchResult | None = None
