"""The arms of one setting: which threshold is chosen for each strategy, and which arm is the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from clipbench.analysis import arms, pairing
from clipbench.analysis import metric_choice as metric
from clipbench.analysis.arms import Arm
from clipbench.analysis.pairing import Pairing
from clipbench.analysis.report_model import Metric, ReportOptions


@dataclass(frozen=True)
class SettingArms:
    """The arms of one setting, those of the main table, and their pairings with the baseline."""

    arms: tuple[Arm, ...]
    shown: tuple[Arm, ...]  # in the main table: the chosen threshold of each strategy, or every arm
    baseline: Arm | None
    baselines: tuple[Arm, ...]  # the candidates among which the baseline was chosen
    pairings: Mapping[str, Pairing]
    metric: Metric
    epochs: float  # within which the target could be reached; NaN without a target

    @property
    def has_target(self) -> bool:
        return bool(np.isfinite(self.epochs))

    @property
    def chosen(self) -> bool:
        return self.metric.criterion is not None

    @property
    def family(self) -> tuple[Arm, ...]:
        return tuple(arm for arm in self.shown if arm.name in self.pairings)

    @cached_property
    def by_strategy(self) -> Mapping[str, list[Arm]]:
        """The thresholds of each strategy."""
        return _by_strategy(self.arms)


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
    """The arms with that name, or else of that strategy; none if there are several and no validation data."""
    named = [arm for arm in all_arms if arm.untuned == name] or [arm for arm in all_arms if arm.strategy == name]
    return tuple(named) if chosen or len(named) == 1 else ()


def _epochs(frame: pd.DataFrame) -> float:
    """The number of epochs within which the target could be reached; NaN without a target."""
    columns = [column for column in ("train.target", "epochs_to_target") if column in frame]
    if not columns or not frame[columns].notna().to_numpy().any():
        return np.nan
    known = [column for column in ("epochs", "epochs_to_target") if column in frame]
    return float(np.nanmax([pd.to_numeric(frame[column], errors="coerce").max() for column in known]))


def _choose(all_arms: Iterable[Arm]) -> tuple[Arm, ...]:
    """The best threshold of each strategy; of equal ones the smallest, because arms are sorted."""
    return tuple(min(candidates, key=lambda arm: arm.rank) for candidates in _by_strategy(all_arms).values())


def _by_strategy(all_arms: Iterable[Arm]) -> dict[str, list[Arm]]:
    found: dict[str, list[Arm]] = {}
    for arm in all_arms:
        found.setdefault(arm.strategy, []).append(arm)
    return found
