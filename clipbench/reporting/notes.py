"""The notes of a report and of its settings: trials that were left out, and limits of what is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clipbench import stats
from clipbench.analysis import verdicts
from clipbench.analysis.report_model import ArmResult, Contrast, Report, Setting, VerdictChange
from clipbench.core import measures
from clipbench.reporting import certainty_notes, numbers
from clipbench.stats import LEVEL

DIFFERENT = (verdicts.BEST, verdicts.FIRST, verdicts.TIED, verdicts.BETTER, verdicts.WORSE)


@dataclass(frozen=True)
class Fact:
    """A term with its words, and what they mean: a line of evidence, or what is needed to train the same trials."""

    term: str
    words: str
    meaning: str


@dataclass(frozen=True)
class Flag:
    """A warning about an arm, and the option that helps if there is one."""

    words: str
    remedy: str = ""


def of_report(report: Report) -> tuple[str, ...]:
    """Notes on the trials as a whole: every trial that is in no table, counted and named."""
    return (*about_tables(report.settings), *_about_families(report), *_about_left_out(report), *_about_tuning(report))


def of_setting(setting: Setting) -> tuple[str, ...]:
    """Notes on one comparison; each appears only where it applies."""
    return (
        *_about_unpaired(setting),
        *_about_baseline(setting),
        *_about_choice(setting),
        *certainty_notes.of_setting(setting),
        *_about_divergence(setting),
        *_about_stopping(setting),
        *_about_pairs(setting),
    )


def about_tables(settings: Sequence[Setting]) -> Iterable[str]:
    """What several tables do to the chance of a false verdict."""
    compared = [row for setting in settings for row in setting.main if row.contrast]
    tables = sum(any(row.contrast for row in setting.main) for setting in settings)
    if tables < 2:
        return
    decided = [row for row in compared if row.verdict in DIFFERENT]
    kept = sum(bool(row.contrast and row.contrast.p_overall < LEVEL) for row in decided)
    differences = numbers.count(len(compared), "difference")
    seeds = max(setting.seeds for setting in settings)
    words = f"{tables} comparison tables test {differences}, each table corrected on its own."
    if decided:
        words += (
            " Each table allows a false better or worse with a probability of 5 %; in one or more of "
            f"{tables} independent tables that is {100 * (1 - (1 - LEVEL) ** tables):.0f} %. If p is corrected for all "
            f"of them, {kept} of {numbers.count(len(decided), 'verdict')} of better or worse "
            f"{'remains' if kept == 1 else 'remain'} so."
            + (
                f" With {numbers.count(seeds, 'seed')} none can; {stats.seeds_needed(len(compared))} are necessary."
                if stats.smallest_p(seeds, len(compared)) >= LEVEL
                else ""
            )
        )
    yield words


def _about_families(report: Report) -> Iterable[str]:
    families = {claim.family for claim in report.claims}
    if 1 < len(families) == len(report.claims):
        chance = 100 * (1 - (1 - LEVEL) ** len(families))
        yield (
            f"Each of the {len(families)} claims has a family of its own, so nothing is corrected: the probability "
            f"that at least one is decided by chance is up to {chance:.0f} % if they are independent."
        )


def _about_left_out(report: Report) -> Iterable[str]:
    left_out = report.left_out
    if report.is_empty and report.search:
        yield "Nothing that the search found has been trained on fresh seeds yet, so there is nothing to compare."
    elif report.is_empty:
        yield "No trial of this experiment has been trained yet."
    for error, names in left_out.failed.items():
        failed, reason = numbers.count(len(names), "trial"), f" ({error.rstrip('.')})" if error else ""
        yield f"{failed} failed with an error; rerun the command to retry: {numbers.listing(names)}{reason}."
    if left_out.pruned:
        pruned = numbers.count(len(left_out.pruned), "trial")
        yield f"{pruned} stopped early by the search: {numbers.listing(left_out.pruned)}."
    if left_out.missing:
        yield f"{numbers.count(len(left_out.missing), 'trial')} not trained yet: {numbers.listing(left_out.missing)}."
    if left_out.others:
        others = numbers.count(left_out.others, "trial")
        verb, they = ("is", "it is") if left_out.others == 1 else ("are", "they are")
        yield f"The results folder also contains {others} that {verb} not part of this YAML; {they} not shown."


def _about_tuning(report: Report) -> Iterable[str]:
    if not report.is_untuned or not report.settings:
        return
    if all(setting.metric.criterion is None for setting in report.settings):
        yield "`report.tuned` has no effect: there is no validation data."
    else:
        yield "`report.tuned` has no effect: all trials have the same learning rate and the same other options."


def _about_unpaired(setting: Setting) -> Iterable[str]:
    words = {
        "initial_weights": ("initial weights", "before the model is built"),
        "first_batches": ("first batches", "before the first batch is drawn, and draw the same numbers for every arm"),
    }
    for each in setting.unpaired:
        what, when = words[each.column]
        yield (
            f"Not paired: the arms began with different {what} on {len(each.seeds)} of "
            f"{numbers.count(each.of, 'seed')} ({numbers.listing(list(map(str, each.seeds)))}), so that differences by "
            f"seed show more than the rule, and p-values for pairs do not hold. Call clip.seed_all() {when}."
        )


def _about_baseline(setting: Setting) -> Iterable[str]:
    if setting.baseline is None:
        several = any(row.strategy == setting.wanted_baseline for row in setting.rows)
        why = "it has several thresholds; name one arm" if several else "it has no finished trial here"
        yield f"The baseline `{setting.wanted_baseline}` cannot be used: {why}. Nothing is compared."


def _about_choice(setting: Setting) -> Iterable[str]:
    criterion = setting.metric.criterion
    if criterion is None:
        chosen = "" if setting.searched else "no threshold is chosen, all are shown, and "
        yield f"No trial has a finite {_wanted(setting.metric.name)}: {chosen}no arm is called best."
    elif criterion == setting.metric.name and setting.searched:
        yield (
            f"What is compared here was selected by {criterion} on the same examples, with other seeds: its values may "
            "be optimistically biased."
        )
    elif criterion == setting.metric.name:
        yield f"Thresholds were selected by the reported metric, {criterion}: its values are optimistically biased."
    left_out = [f"{row.arm} {row.trials} of {setting.seeds}" for row in setting.rows if not row.is_candidate]
    if criterion and left_out:
        names = numbers.listing(left_out)
        yield f"Not chosen from, because they lack seeds that others of their strategy have: {names}."
    for row in setting.main:
        if row.contrast and row.contrast.p_unchosen < LEVEL <= row.contrast.p_holm:
            yield _not_significant_after_choice(setting, row, row.contrast)


def _wanted(metric: str) -> str:
    """The measure by which thresholds would be chosen."""
    part, _, measure = metric.rpartition("/")
    return f"val/{measure}" if part in measures.PARTS else "result on validation data"


def _not_significant_after_choice(setting: Setting, row: ArmResult, found: Contrast) -> str:
    is_better = found.score.wins > found.score.losses
    word, selected = ("better", f"its {setting.choice}") if is_better else ("worse", setting.baseline)
    return (
        f"{row.arm} is not called {word}: {numbers.p_clause(found.p_unchosen)} for this arm alone, but "
        f"{numbers.p_clause(found.p_holm)} if the test repeats the selection of {selected}."
    )


def _about_divergence(setting: Setting) -> Iterable[str]:
    diverged = [row for row in setting.main if row.diverged]
    if diverged:
        counts = ", ".join(f"{row.arm} {numbers.diverged(row)}{_fisher(row)}" for row in diverged)
        yield (
            f"Diverged: {counts}. A diverged trial ranks below every finished trial: it counts as a loss in p and "
            "w-t-l. Means, differences, intervals and dz use the finished seeds."
        )
    broken = [f"{row.arm} {row.nonfinite} of {row.trials}" for row in setting.rows if row.nonfinite]
    if broken:
        names = " or ".join(dict.fromkeys(filter(None, (setting.metric.name, setting.metric.criterion))))
        yield f"Finished trials with an infinite or NaN {names} count as diverged: {numbers.listing(broken)}."
    if setting.otherwise is not None:
        yield without_diverged(setting.otherwise)


def _fisher(row: ArmResult) -> str:
    return f" ({numbers.p_clause(row.contrast.p_diverged)}, Fisher)" if row.contrast else ""


def without_diverged(changes: Sequence[VerdictChange]) -> str:
    """Whether the verdicts depend on the rule that diverged trials rank last."""
    if not changes:
        return "If diverged trials were left out instead, no verdict would change."
    return f"If diverged trials were left out instead, verdicts would change. {'; '.join(map(_change, changes))}."


def _change(each: VerdictChange) -> str:
    at = f", then {each.arm_without}" if each.arm_without not in ("", each.arm) else ""
    return f"{each.arm}{at}: {each.verdict_without} instead of {each.verdict}"


def _about_stopping(setting: Setting) -> Iterable[str]:
    if stops := setting.early_stops:
        epochs = f"after epoch {stops.first}" + (f" to {stops.last}" if stops.last > stops.first else "")
        trials = numbers.count(stops.trials, "trial")
        yield f"{stops.stopped} of {trials} stopped early, {epochs}; their curves end there."


def _about_pairs(setting: Setting) -> Iterable[str]:
    short = [
        f"{row.arm} {row.contrast.pairs}" for row in setting.main if row.contrast and row.contrast.pairs < setting.seeds
    ]
    if short:
        yield f"Fewer than {setting.seeds} pairs of seeds: {', '.join(short)}."
    without = [row.arm for row in setting.main if row.value.n < row.trials - row.diverged]
    if without:
        yield f"Finished trials without a finite {setting.metric.name} are left out: {numbers.listing(without)}."
    if setting.averages_folds:
        reaches = "; a seed reaches the target if all of its folds do" if setting.target else ""
        yield f"Trials of the same arm and seed (folds) are averaged first{reaches}."
