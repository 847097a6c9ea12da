"""The cases of a claim: which arms of which settings are compared, seed by seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipbench.analysis import arms, metric_choice
from clipbench.analysis.arms import Arm, Mask
from clipbench.analysis.pairing import Pairing, p_after_choice, pair, stacked
from clipbench.analysis.report_model import Metric, ReportOptions
from clipbench.config.claim_language import same_value
from clipbench.core import measures
from clipbench.errors import InputError
from clipbench.stats import Floats

if TYPE_CHECKING:
    from clipbench.config.claim_language import Expectation, Side


class UntestableClaim(ValueError):
    """A claim that these trials cannot test, and why."""


@dataclass(frozen=True, eq=False)
class Cases:
    """The pairings of the two sides of a claim, one a setting (and threshold, if all are meant)."""

    pairings: tuple[Pairing, ...]
    by_left: tuple[Pairing, ...] = ()  # candidates for the left side's threshold, against the right side
    by_right: tuple[Pairing, ...] = ()

    @cached_property
    def rows(self) -> Pairing:
        return stacked(self.pairings)

    @cached_property
    def ranked(self) -> Floats:
        """Mean differences over the cases, for the seeds that all of them have; divergences first."""
        means: Floats = self.rows.ranked.mean(axis=0)
        return means[np.isfinite(means)]

    @property
    def finished(self) -> Floats:
        """Mean differences of the seeds on which all trials finished."""
        means: Floats = self.rows.differences.mean(axis=0)
        return means[~self.rows.both_diverged.any(axis=0)]

    @property
    def is_identical(self) -> bool:
        return not self.rows.decided_by_divergence and bool(self.holds("=", 0.0).all())

    def holds(self, relation: str, margin: float) -> Mask:
        """Whether each case and seed is as expected."""
        every = np.concatenate([pairing.ranked[np.isfinite(pairing.ranked)] for pairing in self.pairings])
        held: Mask = abs(every) <= margin if relation == "=" else every > margin
        return held

    def turned(self) -> Cases:
        """The same with the sides exchanged."""
        sides = (self.pairings, self.by_right, self.by_left)
        return Cases(*(tuple(pairing.turned() for pairing in side) for side in sides))

    def p_after_choice(self, margin: float, *, better: bool) -> float:
        """p of the side that seems better, where the test repeats the choice of its threshold; 0 without a choice."""
        candidates = self.by_left if better else self.turned().by_left
        return p_after_choice(candidates, margin if better else -margin) if candidates else 0.0


def cases(frame: pd.DataFrame, expectation: Expectation, options: ReportOptions) -> tuple[Cases, Metric]:
    """The cases of an expectation; raise `UntestableClaim` if there is none."""
    measured = _metric(frame, options)
    seeds = np.unique(frame["seed"])
    found = [
        _cases(expectation, arms.gather(left, measured, seeds), arms.gather(right, measured, seeds), measured)
        for left, right in _settings(frame, expectation)
    ]
    pairings = tuple(pairing for each in found for pairing in each.pairings)
    result = replace(found[0], pairings=pairings) if len(found) == 1 else Cases(pairings)
    if not pairings or not result.ranked.size:
        raise UntestableClaim(f"no seed has both {expectation.left.text} and {expectation.right.text}")
    return result, measured


def _metric(frame: pd.DataFrame, options: ReportOptions) -> Metric:
    if frame.empty:
        raise UntestableClaim("no trial has been trained yet")
    options = replace(options, higher={**dict.fromkeys(measures.NEUTRAL, True), **options.higher})
    try:
        metric_choice.check(frame, options)
    except InputError as error:
        raise UntestableClaim(error.problems[0].text.rstrip(".")) from None
    return metric_choice.of_setting(frame, options)


def _settings(frame: pd.DataFrame, expectation: Expectation) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Pairs of settings to compare: equal in everything that the two sides do not name differently."""
    sides = _inherited(expectation.left, expectation.right), _inherited(expectation.right, expectation.left)
    left, right = (_within(frame, side) for side in sides)
    if not left.any() or not right.any():
        raise UntestableClaim("one of its sides has no finished trial")
    differing = _differing(*sides)
    these, those = (dict(side.options) for side in sides)
    varied = {name for name in {*these, *those} if not same_value(these.get(name), those.get(name, ""))}
    columns = arms.setting_columns(frame)
    shared = [name for name in columns if not _within_option(name, varied) and not _belongs(name, differing)]
    codes = arms.codes_of(frame, shared)
    for code in np.unique(codes[left]):
        if (right & (codes == code)).any():
            yield frame[left & (codes == code)], frame[right & (codes == code)]


def _inherited(side: Side, other: Side) -> Side:
    """Add what only the other side says about the setting: in `adam.norm > none`, both sides use Adam.

    Options of a section in which the sides differ are not added: in `adam.none > sgd.none[lr=0.01]`, Adam keeps its
    own learning rate.
    """
    side = replace(side, where=tuple((dict(other.where) | dict(side.where)).items()))
    apart = _differing(side, replace(other, where=tuple((dict(side.where) | dict(other.where)).items())))
    shared = {name: value for name, value in other.options if not _belongs(name, apart)}
    return replace(side, options=tuple((shared | dict(side.options)).items()))


def _differing(one: Side, other: Side) -> set[str]:
    """The sections in which two sides name different components."""
    here, there = dict(one.where), dict(other.where)
    return {section for section in here if here[section] != there.get(section)}


def _within(frame: pd.DataFrame, side: Side) -> Mask:
    within = np.ones(len(frame), bool)
    for section, name in side.where:
        within &= frame[section].eq(name).to_numpy(bool)
    for column, wanted in side.options:
        cells = frame[column] if column in frame else pd.Series(index=frame.index, dtype=object)
        within &= np.array([same_value(cell, wanted) for cell in cells], bool)
    return within


def _within_option(column: str, options: Iterable[str]) -> bool:
    """Whether a column is one of the options or below one: `train.noise.scale` is below `train.noise`."""
    return any(column == option or column.startswith(f"{option}.") for option in options)


def _belongs(column: str, sections: Iterable[str]) -> bool:
    section = "optimizer" if column == "lr" else column.partition(".")[0]
    return section in sections


def _arms(known: Sequence[Arm], side: Side) -> list[Arm]:
    found = [arm for arm in known if side.holds(arm.strategy, arm.threshold)]
    if not found:
        raise UntestableClaim(f"{side.text} has no finished trial")
    return found


def _cases(expectation: Expectation, known: Sequence[Arm], others: Sequence[Arm], measured: Metric) -> Cases:
    """The cases of one setting of each side."""
    one, another = expectation.left, expectation.right
    if one.minus and another.minus:
        return Cases(
            (
                _gain(
                    _difference(one, one.minus, known, measured), _difference(another, another.minus, others, measured)
                ),
            )
        )
    left, right = _arms(known, one), _arms(others, another)
    if not expectation.measure and not (one.strategy and another.strategy):
        return Cases(tuple(_same_arms(left, right, measured.sign)))
    if expectation.measure or expectation.always:
        return Cases(tuple(_every_threshold(left, right, measured.sign)))
    mine, other = _best(one, left, measured), _best(another, right, measured)
    return Cases(
        (pair(mine, other, measured.sign),),
        tuple(pair(arm, other, measured.sign) for arm in left),
        tuple(pair(mine, arm, measured.sign) for arm in right),
    )


def _same_arms(left: Iterable[Arm], right: Iterable[Arm], sign: int) -> Iterator[Pairing]:
    """The arms that both sides have, for claims such as `adam > sgd`."""
    others = {arm.name: arm for arm in right}
    for arm in left:
        if arm.name in others and others[arm.name] is not arm:
            yield pair(arm, others[arm.name], sign)


def _every_threshold(left: Sequence[Arm], right: Sequence[Arm], sign: int) -> Iterator[Pairing]:
    """The thresholds that both sides have; without any, each of the left with each of the right."""
    shared = {arm.threshold for arm in left} & {arm.threshold for arm in right} - {None}
    for arm, other in itertools.product(left, right):
        if not shared or (arm.threshold in shared and arm.threshold == other.threshold):
            yield pair(arm, other, sign)


def _best(side: Side, known: Sequence[Arm], measured: Metric) -> Arm:
    if len(known) > 1 and not measured.criterion:
        raise UntestableClaim(
            f"{side.text} has several thresholds and there is no validation data to choose one; name it in the claim"
        )
    return min(known, key=lambda arm: arm.rank)


def _difference(side: Side, minus: Side, known: Sequence[Arm], measured: Metric) -> Pairing:
    mine, base = (_best(each, _arms(known, each), measured) for each in (side, minus))
    return pair(mine, base, measured.sign)


def _gain(left: Pairing, right: Pairing) -> Pairing:
    """The difference of two differences by seed; a divergence on both sides cancels out."""
    won, lost = left.won | right.lost, left.lost | right.won
    cancelled = (won & lost) | (left.won & right.won) | (left.lost & right.lost)
    return Pairing(
        differences=np.where(cancelled, 0.0, left.differences - right.differences),
        criteria=np.where(cancelled, 0.0, left.criteria - right.criteria),
        won=won & ~cancelled,
        lost=lost & ~cancelled,
        both_diverged=cancelled,
    )
