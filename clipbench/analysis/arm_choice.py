"""The arms of one setting: which of them stands for its strategy, which is the baseline, and their pairings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipbench.analysis import arms, pairing
from clipbench.analysis import metric_choice as metric
from clipbench.analysis.arms import Arm
from clipbench.analysis.pairing import Pairing
from clipbench.analysis.report_model import Metric, ReportOptions


@dataclass(frozen=True)
class SettingArms:
    """The arms of one setting, which of them stand for their strategy, and the pairings with the baseline."""

    arms: tuple[Arm, ...]
    shown: tuple[Arm, ...]
    baseline: Arm | None
    baselines: tuple[Arm, ...]  # among which the baseline was chosen
    pairings: Mapping[str, Pairing]
    metric: Metric
    epochs: float  # within which a target could be reached; NaN where there is none

    @property
    def has_target(self) -> bool:
        return bool(np.isfinite(self.epochs))

    @property
    def chosen(self) -> bool:
        return self.metric.criterion is not None

    @property
    def family(self) -> tuple[Arm, ...]:
        return tuple(arm for arm in self.shown if arm.name in self.pairings)

    def siblings(self, arm: Arm) -> list[Arm]:
        return [each for each in self.arms if each.strategy == arm.strategy]


def group_of(frame: pd.DataFrame, options: ReportOptions) -> SettingArms:
    measured = metric.of_setting(frame, options)
    all_arms = arms.gather(frame, measured)
    shown = _choose(all_arms) if measured.criterion else tuple(all_arms)
    baselines = _baselines(all_arms, options.baseline, chosen=measured.criterion is not None)
    baseline = min(baselines, key=lambda arm: arm.rank) if baselines else None
    pairings: dict[str, Pairing] = {}
    if baseline:
        others = [arm for arm in all_arms if arm is not baseline]
        pairings = {arm.name: pairing.pair(arm, baseline, measured.sign) for arm in others}
        shown = (baseline, *(arm for arm in shown if not _stands_for(arm, baseline, baselines)))
    return SettingArms(tuple(all_arms), shown, baseline, baselines, pairings, measured, _epochs(frame))


def _stands_for(arm: Arm, baseline: Arm, baselines: Sequence[Arm]) -> bool:
    return arm is baseline or (arm in baselines and arm.strategy == baseline.strategy)


def _baselines(all_arms: Sequence[Arm], name: str, *, chosen: bool) -> tuple[Arm, ...]:
    """The arms of that name, or else of that strategy; none where several could be meant and nothing chooses."""
    named = [arm for arm in all_arms if arm.untuned == name] or [arm for arm in all_arms if arm.strategy == name]
    return tuple(named) if chosen or len(named) == 1 else ()


def _epochs(frame: pd.DataFrame) -> float:
    """How long a target was watched for; NaN where there is none."""
    columns = [column for column in ("train.target", "epochs_to_target") if column in frame]
    if not columns or not frame[columns].notna().to_numpy().any():
        return np.nan
    known = [column for column in ("epochs", "epochs_to_target") if column in frame]
    return float(np.nanmax([pd.to_numeric(frame[column], errors="coerce").max() for column in known]))


def _choose(all_arms: Iterable[Arm]) -> tuple[Arm, ...]:
    """The best threshold of each strategy; of equals the smallest, as the arms come sorted."""
    by_strategy: dict[str, list[Arm]] = {}
    for arm in all_arms:
        by_strategy.setdefault(arm.strategy, []).append(arm)
    return tuple(min(candidates, key=lambda arm: arm.rank) for candidates in by_strategy.values())
