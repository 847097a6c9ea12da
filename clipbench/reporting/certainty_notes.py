"""Notes on how certain a comparison is: missing seeds, intervals beside p, parts of the data that are small."""

from __future__ import annotations

import math
from collections.abc import Iterable

from clipbench import stats
from clipbench.analysis import verdicts
from clipbench.analysis.report_model import ArmResult, Contrast, Setting
from clipbench.reporting import numbers
from clipbench.stats import LEVEL, Estimate


def of_setting(setting: Setting) -> tuple[str, ...]:
    """Each of these notes that applies to a comparison."""
    return (*_about_power(setting), *_about_interval(setting), *_about_size(setting), *_about_ties(setting))


def _about_power(setting: Setting) -> Iterable[str]:
    compared = [(row, row.contrast) for row in setting.main if row.contrast]
    if not compared:
        return
    after, needed = f"after Holm's correction for {numbers.count(len(compared), 'comparison')}", stats.seeds_needed
    if stats.smallest_p(setting.seeds, len(compared)) >= LEVEL:
        reachable = numbers.p_value(stats.smallest_p(setting.seeds, len(compared)))
        yield (
            f"{numbers.count(setting.seeds, 'seed')} cannot reach p < 0.05 {after} (smallest possible p: {reachable}); "
            f"use at least {needed(len(compared))} seeds."
        )
        return
    few = [
        f"{row.arm} on {found.differing} of {found.pairs}"
        for row, found in compared
        if row.verdict == verdicts.UNDERPOWERED
    ]
    if few:
        yield (
            f"Arms that differ from {setting.baseline} on too few seeds: {numbers.listing(few)}. To reach p < 0.05 "
            f"{after}, {needed(len(compared))} must differ: more seeds, or for ties more examples, are necessary."
        )
    undecided = [
        f"{row.arm} {numbers.seeds_needed(found.seeds_needed)} ({numbers.seeds_needed(found.seeds_needed_low)})"
        for row, found in compared
        if row.verdict in (verdicts.NO_DIFFERENCE, verdicts.UNDERPOWERED) and math.isfinite(found.seeds_needed)
    ]
    if undecided:
        yield (
            "Seeds that would show a difference with 80 % power if it is as observed (if it is at the end of its "
            f"interval that is closer to zero): {numbers.listing(undecided)}."
        )


def _about_interval(setting: Setting) -> Iterable[str]:
    """Where only the t interval excludes 0. The opposite means little: with few seeds BCa is too narrow."""
    for row in setting.main:
        if row.contrast and _excludes_zero(row.contrast.difference) and not _excludes_zero(row.contrast.bootstrap):
            bootstrap = numbers.interval(row.contrast.bootstrap, setting.metric)
            yield f"{row.arm}: the bootstrap interval (BCa), {bootstrap}, contains 0; the t interval does not."
    if unlike := [row.arm for row in setting.main if row.contrast and _is_unlike_p(row, row.contrast)]:
        yield (
            f"The interval and p disagree whether there is a difference: {numbers.listing(unlike)}. The interval is of "
            "one arm and takes its differences to be normal; p takes no such thing and is corrected for all arms. The "
            "verdict follows p."
        )


def _is_unlike_p(row: ArmResult, found: Contrast) -> bool:
    """Whether the t interval says other than p, and neither too few seeds nor the choice of a threshold explain it."""
    excludes = _excludes_zero(found.difference)
    explained = row.verdict == verdicts.UNDERPOWERED or (excludes and found.p_unchosen < LEVEL)
    return not math.isnan(found.p_holm) and excludes != (found.p_holm < LEVEL) and not explained


def _excludes_zero(value: Estimate) -> bool:
    return value.low > 0 or value.high < 0


def _about_size(setting: Setting) -> Iterable[str]:
    """Parts of the data that are too small for the margin."""
    if setting.margin and setting.metric.is_share:
        coarse = [
            f"{name} by {numbers.number(numbers.scale(setting.metric) * step)} pp"
            for name, step in setting.example_steps.items()
            if step > setting.margin
        ]
        if coarse:
            yield (
                f"One example changes a seed's value by more than the margin of "
                f"{numbers.margin(setting.margin, setting.metric)}: {numbers.listing(coarse)}. Use more examples or a "
                "wider margin."
            )


def _about_ties(setting: Setting) -> Iterable[str]:
    """Why results that are all equal are not called `no effect`."""
    undecided = [row for row in setting.main if row.verdict in (verdicts.UNDERPOWERED, verdicts.NO_DIFFERENCE)]
    tied = [row for row in undecided if row.contrast and row.contrast.score.ties == row.contrast.difference.n > 1]
    if tied and setting.margin:
        names, seeds = numbers.listing([row.arm for row in tied]), numbers.count(setting.seeds, "seed")
        yield (
            f"Equal to {setting.baseline} on every seed, but with other weights: {names}. {seeds} and so few test "
            f"examples do not show that the difference is within {numbers.margin(setting.margin, setting.metric)}."
        )
