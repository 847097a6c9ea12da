"""The arms of one setting: which threshold is chosen for each strategy, and which arm is the baseline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from clipbench.analysis import arms, metric_choice
from clipbench.analysis.arms import Arm
from clipbench.analysis.comparison import Case, Comparison
from clipbench.analysis.pairing import Pairing, pair
from clipbench.analysis.report_model import Metric, ReportOptions


@dataclass(frozen=True, eq=False)
class SettingArms:
    """The arms of one setting, those of the main table, and their comparisons with the baseline."""

    frame: pd.DataFrame
    options: ReportOptions
    leaves_out_diverged: bool = False  # instead of ranking them last

    @cached_property
    def metric(self) -> Metric:
        return metric_choice.of_setting(self.frame, self.options)

    @property
    def chosen(self) -> bool:
        """Whether validation data choose a threshold for each strategy."""
        return self.metric.criterion is not None

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        found = arms.gather(self.frame, self.metric)
        if self.leaves_out_diverged:
            found = [arm.without_diverged() for arm in found if not arm.diverged[arm.present].all()]
        return tuple(found)

    @cached_property
    def by_strategy(self) -> Mapping[str, list[Arm]]:
        """The thresholds of each strategy."""
        found = defaultdict(list)
        for arm in self.arms:
            found[arm.strategy].append(arm)
        return found

    @cached_property
    def candidates(self) -> Mapping[str, list[Arm]]:
        """The thresholds of each strategy of which one is chosen; of the others, some trials are missing."""
        return {strategy: arms.candidates(known) for strategy, known in self.by_strategy.items()}

    @cached_property
    def baselines(self) -> tuple[Arm, ...]:
        """The arms with the name of the baseline, or else of that strategy; none if nothing chooses among several."""
        name = self.options.baseline
        named = [arm for arm in self.arms if arm.untuned == name] or self.by_strategy.get(name, [])
        return tuple(arms.candidates(named)) if named and (self.chosen or len(named) == 1) else ()

    @cached_property
    def baseline(self) -> Arm | None:
        return min(self.baselines, key=lambda arm: arm.rank, default=None)

    @cached_property
    def shown(self) -> tuple[Arm, ...]:
        """The main table: the baseline, then the chosen threshold of each strategy, or every arm."""
        shown = self.arms
        if self.chosen:  # of equal ones the smallest, because arms are sorted
            shown = tuple(min(each, key=lambda arm: arm.rank) for each in self.candidates.values())
        if self.baseline is None:
            return shown
        stand_for = [arm for arm in self.baselines if arm.strategy == self.baseline.strategy]
        return (self.baseline, *(arm for arm in shown if arm not in stand_for))

    @cached_property
    def pairings(self) -> Mapping[str, Pairing]:
        """Every other arm paired with the baseline, by name; empty without one."""
        base = self.baseline
        return {arm.name: pair(arm, base, self.metric.sign) for arm in self.arms if arm is not base} if base else {}

    @cached_property
    def comparisons(self) -> Mapping[str, Comparison]:
        """The arms that are tested, each with the candidates among which it and the baseline were chosen."""
        base, chosen = self.baseline, self.chosen
        return {
            arm.name: self.compared(arm, base, self.candidates[arm.strategy] if chosen else (), self.baselines)
            for arm in self.family
            if base
        }

    def compared(self, left: Arm, right: Arm, lefts: Sequence[Arm] = (), rights: Sequence[Arm] = ()) -> Comparison:
        """Compare two arms; `lefts` and `rights` are the candidates among which they were chosen."""
        others = [each for each in lefts if each is not right], [each for each in rights if each is not left]
        return Comparison((Case.of(left, right, self.metric.sign, *others),), self.grain)

    @cached_property
    def grain(self) -> float:
        """The smallest step of a seed's value."""
        return metric_choice.grain(self.frame, self.metric.name, self.options.examples)

    @property
    def family(self) -> tuple[Arm, ...]:
        """The arms that are tested against the baseline."""
        return tuple(arm for arm in self.shown if arm.name in self.pairings)

    @cached_property
    def epochs(self) -> float:
        """The number of epochs within which the target could be reached; NaN without a target."""
        frame = self.frame
        if not any(frame[column].notna().any() for column in ("train.target", "epochs_to_target") if column in frame):
            return np.nan
        known = [column for column in ("epochs", "epochs_to_target") if column in frame]
        return float(np.nanmax([pd.to_numeric(frame[column], errors="coerce").max() for column in known]))
