"""The cases of a claim: which arms of which settings are compared, seed by seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipbench.analysis import arms, metric_choice
from clipbench.analysis.arms import Arm, Mask
from clipbench.analysis.comparison import Case, Comparison
from clipbench.analysis.report_model import Metric, ReportOptions
from clipbench.config.claim_language import same_value
from clipbench.core import measures
from clipbench.errors import InputError

if TYPE_CHECKING:
    from clipbench.config.claim_language import Expectation, Side


class UntestableClaim(ValueError):
    """A claim that these trials cannot test, and why."""


def comparison(frame: pd.DataFrame, expectation: Expectation, options: ReportOptions) -> tuple[Comparison, Metric]:
    """What an expectation compares; raise `UntestableClaim` if there is nothing."""
    measured = _metric(frame, options)
    seeds = np.unique(frame["seed"])
    found, grains = [], []
    for sides in _settings(frame, expectation):
        both = pd.concat(sides)
        broken = np.split(arms.nonfinite(both, measured), [len(sides[0])])
        left, right = (arms.gather(side, measured, seeds, part) for side, part in zip(sides, broken, strict=True))
        found += cases(expectation, left, right, measured)
        grains.append(metric_choice.grain(both, measured.name, options.examples))
    total = 2.0 if expectation.left.minus else 1.0
    compared = Comparison(tuple(found), max(grains, default=np.inf), total, measures.is_fixed(measured.name))
    if measured.name == "epochs_to_target" and not frame["epochs_to_target"].notna().any():
        raise UntestableClaim("no trial reached the target")
    if not found or not compared.ranked.size:
        raise UntestableClaim(f"no seed has both {expectation.left.text} and {expectation.right.text}")
    return compared, measured


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
        codes, values = pd.factorize(cells, use_na_sentinel=False)
        within &= np.array([same_value(value, wanted) for value in values], bool)[codes]
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


def cases(expectation: Expectation, known: Sequence[Arm], others: Sequence[Arm], measured: Metric) -> list[Case]:
    """The cases of one setting of each side."""
    one, another, sign = expectation.left, expectation.right, measured.sign
    if one.minus and another.minus:  # (a - b) - (c - d) is the sum of a - b and d - c
        return [_best(one, one.minus, known, known, measured), _best(another.minus, another, others, others, measured)]
    left, right = _arms(known, one), _arms(others, another)
    if not expectation.measure and not (one.strategy and another.strategy):
        return [Case.of(*pair, sign) for pair in _same_arms(left, right)]
    if expectation.measure or expectation.always:
        return [Case.of(*pair, sign) for pair in _every_threshold(left, right)]
    return [_best(one, another, known, others, measured)]


def _same_arms(left: Iterable[Arm], right: Iterable[Arm]) -> Iterator[tuple[Arm, Arm]]:
    """The arms that both sides have, for claims such as `adam > sgd`."""
    others = {arm.name: arm for arm in right}
    for arm in left:
        if arm.name in others and others[arm.name] is not arm:
            yield arm, others[arm.name]


def _every_threshold(left: Sequence[Arm], right: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    """The thresholds that both sides have; without any, each of the left with each of the right."""
    shared = {arm.threshold for arm in left} & {arm.threshold for arm in right} - {None}
    for arm, other in itertools.product(left, right):
        if not shared or (arm.threshold in shared and arm.threshold == other.threshold):
            yield arm, other


def _best(left: Side, right: Side, known: Sequence[Arm], others: Sequence[Arm], measured: Metric) -> Case:
    """Both sides at their best thresholds."""
    candidates = _candidates(left, known, measured), _candidates(right, others, measured)
    mine, other = (min(each, key=lambda arm: arm.rank) for each in candidates)
    return Case.of(mine, other, measured.sign, *candidates)


def _candidates(side: Side, known: Sequence[Arm], measured: Metric) -> list[Arm]:
    """The arms to which a side refers, if one of them can be chosen."""
    found = _arms(known, side)
    if len(found) > 1 and not measured.criterion:
        raise UntestableClaim(
            f"{side.text} has several thresholds and there is no validation data to choose one; name it in the claim"
        )
    return arms.candidates(found)
