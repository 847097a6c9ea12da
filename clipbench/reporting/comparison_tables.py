"""The tables of a comparison: which columns they have, what each means and how its numbers are written."""

from __future__ import annotations

import math

from clipbench.analysis import verdicts
from clipbench.analysis.report_model import ArmResult, Metric, Setting
from clipbench.analysis.strategy_ranks import Ranks
from clipbench.reporting import numbers
from clipbench.reporting.table import Table, TableColumn, mean_column, share_column

P_HOLM: TableColumn[ArmResult] = TableColumn(
    "p (Holm)",
    "Two-sided paired sign-flip permutation test of the difference, which repeats the choice of the threshold if there "
    "was one, corrected by Holm's method for all rows that are compared with the baseline. It decides the verdict.",
    value=lambda row: row.contrast and row.contrast.p_holm,
    text=numbers.p_value,
)
P_OVERALL: TableColumn[ArmResult] = TableColumn(
    "p (overall)",
    "The same p, corrected by Holm's method for the rows of all comparison tables of this report.",
    value=lambda row: row.contrast and row.contrast.p_overall,
    text=numbers.p_value,
)
EFFECT: TableColumn[ArmResult] = TableColumn(
    "dz",
    "Effect size (Cohen's dz): the mean difference divided by its standard deviation over seeds.",
    value=lambda row: row.contrast and row.contrast.dz,
    text=numbers.effect,
)
WINS: TableColumn[ArmResult] = TableColumn(
    "w-t-l",
    "Wins-ties-losses against the baseline, over seeds; a diverged trial loses.",
    value=lambda row: row.contrast and row.contrast.score,
    text=lambda score: f"{score.wins}-{score.ties}-{score.losses}",
    exact=lambda score: float(score.wins - score.losses),
)
DIVERGED: TableColumn[ArmResult] = TableColumn(
    "diverged",
    "Seeds with an infinite or NaN loss, gradient, weight or result, of all seeds.",
    value=lambda row: row,
    text=numbers.diverged,
    exact=lambda row: float(row.diverged),
)
GRADIENT_NORM: TableColumn[ArmResult] = TableColumn(
    "norm",
    "Gradient norm: median before clipping, over steps and seeds.",
    value=lambda row: row.grad_norm,
    text=numbers.number,
)
CLIPPED: TableColumn[ArmResult] = share_column(
    "clipped", "Share of steps on which the rule clipped, over all seeds.", lambda row: row.fired_share
)
CLIPPED_ELEMENTS: TableColumn[ArmResult] = share_column(
    "elements", "Share of the gradient's elements that the rule changed.", lambda row: row.fraction
)
STEP_TIME: TableColumn[ArmResult] = TableColumn(
    "step",
    "Median time of one training step of one trial.",
    value=lambda row: row.step_us,
    text=numbers.number,
    unit="µs",
)
REACHED: TableColumn[ArmResult] = TableColumn(
    "reached",
    "Seeds that reached the target, of all seeds; a diverged trial does not.",
    value=lambda row: row.reach,
    text=lambda reach: f"{reach.reached} of {reach.trials}",
    exact=lambda reach: float(reach.reached),
)
MEDIAN_EPOCHS: TableColumn[ArmResult] = TableColumn(
    "median",
    "Median epochs to the target; a seed that did not reach it counts as later than all others.",
    value=lambda row: row.reach,
    text=numbers.reach,
    exact=lambda reach: reach.median,
)
MEAN_EPOCHS: TableColumn[ArmResult] = TableColumn(
    "restricted mean",
    "Mean epochs to the target; a seed that did not reach it counts with all its epochs.",
    value=lambda row: row.reach and row.reach.restricted,
    text=numbers.number,
)
P_LOG_RANK: TableColumn[ArmResult] = TableColumn(
    "p (log-rank)",
    "Two-sided log-rank test that the arm and the baseline reach the target at the same rate; seeds are not paired, "
    "and p is not corrected for multiple comparisons.",
    value=lambda row: row.contrast and row.contrast.p_reach,
    text=numbers.p_value,
)


def tables(setting: Setting, *, full: bool = True) -> list[Table[ArmResult]]:
    """The tables of a setting; without `full`, not the one of every strategy and threshold."""
    # The other rows of a tuned comparison are in the tables of the settings that it chose from.
    has_more = full and len(setting.rows) > len(setting.main) and not setting.tuned
    is_timed = any(row.reach for row in setting.main)
    found = [comparison(setting), training(setting), *([target(setting)] if is_timed else [])]
    return [*found, *([everything(setting)] if has_more else [])]


def comparison(setting: Setting) -> Table[ArmResult]:
    """The result: one row for each strategy, at its best threshold, and the baseline first."""
    columns = [arm(setting), metric(setting)]
    if setting.baseline:
        is_one_of_many = any(row.contrast and not math.isnan(row.contrast.p_overall) for row in setting.main)
        columns += [difference(setting), P_HOLM, *([P_OVERALL] if is_one_of_many else [])]
    columns.append(verdict(setting))
    return Table("comparison", f"Comparison: {_chosen(setting)}", tuple(columns), setting.main)


def _chosen(setting: Setting) -> str:
    if setting.searched:
        equal = f", at equal {setting.equal}" if setting.equal else ""
        return f"each strategy as the search found it{equal}, on fresh seeds"
    return f"each strategy at its best {setting.choice}" if setting.metric.criterion else "every strategy and threshold"


def training(setting: Setting) -> Table[ArmResult]:
    """Training statistics of the arms of the comparison: effect size, divergence, clipping and cost."""
    compared = (EFFECT, WINS) if setting.baseline else ()
    columns = (arm(setting), *compared, DIVERGED, GRADIENT_NORM, CLIPPED, STEP_TIME)
    return Table("training", "Training statistics", columns, setting.main)


def target(setting: Setting) -> Table[ArmResult]:
    """When the arms of the comparison reached the target; no number leaves out the seeds that did not."""
    compared = (P_LOG_RANK,) if setting.baseline else ()
    columns = (arm(setting), REACHED, MEDIAN_EPOCHS, MEAN_EPOCHS, *compared)
    words = f": {setting.target}" if setting.target else ""
    return Table("target", f"Epochs to the target{words}", columns, setting.main)


def everything(setting: Setting) -> Table[ArmResult]:
    """Every strategy at every threshold; `*` marks the chosen ones."""
    columns = [arm(setting, mark=True)]
    if setting.metric.criterion:
        columns.append(criterion(setting.metric.criterion))
    columns.append(metric(setting))
    if setting.baseline:
        columns.append(difference(setting))
    columns += [DIVERGED, CLIPPED]
    if any(not math.isnan(row.fraction) for row in setting.rows):
        columns.append(CLIPPED_ELEMENTS)
    return Table("everything", "Every strategy and threshold", tuple(columns), setting.rows)


def ranks(found: Ranks) -> Table[str]:
    """The strategies by their average rank over several settings."""
    means = dict(zip(found.strategies, found.ranking.means, strict=True))
    columns: tuple[TableColumn[str], ...] = (
        TableColumn("strategy", "A clipping strategy.", value=lambda strategy: strategy, is_text=True),
        TableColumn(
            "average rank",
            "Mean of the ranks of the strategy over the settings; 1 is best.",
            value=lambda strategy: means[strategy],
            text=lambda mean: f"{mean:.2f}",
        ),
        TableColumn(
            "not significantly different from",
            "The strategies whose average rank is closer than the critical difference of Nemenyi's test.",
            value=lambda strategy: numbers.listing(found.not_significantly_different_from(strategy)) or None,
            is_text=True,
        ),
    )
    return Table("ranks", "Ranks", columns, found.strategies)


def arm(setting: Setting, *, mark: bool = False) -> TableColumn[ArmResult]:
    """The name of the arm; with `mark`, followed by `*` where the threshold was chosen."""

    def label(row: ArmResult) -> str:
        is_choice = row.shown and setting.metric.criterion and row.verdict != verdicts.BASELINE
        return f"{row.arm} *" if mark and is_choice else row.arm

    return TableColumn("arm", _about_arms(setting), value=label, is_text=True)


def _about_arms(setting: Setting) -> str:
    if setting.searched:
        return "A clipping strategy with the options that the search found, on seeds that the search did not use."
    if not setting.metric.criterion:
        return "A clipping strategy at one threshold."
    marked = "" if setting.is_choice else " (*)"
    return (
        f"A clipping strategy at one threshold. Chosen for each strategy{marked}: the {setting.choice} with the best "
        f"mean {setting.metric.criterion}; a threshold that diverged on more seeds ranks below."
    )


def metric(setting: Setting) -> TableColumn[ArmResult]:
    """The metric that is compared."""
    measure = setting.metric
    better = "higher" if measure.higher_is_better else "lower"
    meaning = f"Mean over seeds ± half-width of its 95 % t interval; {better} is better."
    if measure.name == "epochs_to_target":
        meaning += (
            " A trial that never reached the target counts with one epoch more than it was trained, so such a mean is "
            "too small."
        )
    return mean_column(measure.name, meaning, measure, lambda row: row.value)


def criterion(name: str) -> TableColumn[ArmResult]:
    """The validation measure by which thresholds are chosen."""
    measure = Metric(name, True, None)
    return TableColumn(
        name,
        "Mean over seeds, by which each strategy's threshold is chosen; test data is not used for the choice.",
        value=lambda row: numbers.scale(measure) * row.criterion,
        text=numbers.number,
        unit="%" if measure.is_share else "",
    )


def difference(setting: Setting) -> TableColumn[ArmResult]:
    """The difference to the baseline, paired by seed."""
    return mean_column(
        f"vs {setting.versus}",
        f"Mean difference to {setting.baseline or 'the baseline'}, paired by seed, ± half-width of its 95 % t "
        "interval; positive is better, whatever the metric.",
        setting.metric,
        lambda row: row.contrast.difference if row.contrast else None,
        is_difference=True,
    )


def verdict(setting: Setting) -> TableColumn[ArmResult]:
    """What is concluded of each arm."""
    is_choice = setting.metric.criterion and not setting.searched
    choice = ", also when the test repeats the choice of the threshold" if is_choice else ""
    better = f"Better than the baseline (p < 0.05{choice})"
    margin = numbers.margin(setting.margin, setting.metric) if setting.margin else "the margin"
    words = {
        verdicts.BASELINE: "The arm that all others are compared with.",
        verdicts.NO_BASELINE: "There is no baseline to compare with.",
        verdicts.BEST: f"{better}, and than all others that are.",
        verdicts.FIRST: f"{better}, and the first of those on validation data; not all others are shown to be worse.",
        verdicts.TIED: "Better than the baseline too, and not significantly worse than the best on validation data.",
        verdicts.BETTER: f"{better}. If another arm is the best, significantly worse than that.",
        verdicts.WORSE: "Worse than the baseline (p < 0.05).",
        verdicts.NO_EFFECT: f"Shown to lie within {margin} of the baseline (TOST, p < 0.05{choice}), or trained to the "
        "same weights. Results that tie show it only with enough seeds and test examples.",
        verdicts.UNDERPOWERED: "Too few seeds, or too few on which the results differ, to reach p < 0.05.",
        verdicts.NO_DIFFERENCE: "Neither a difference nor equivalence is significant.",
    }
    meaning = "The conclusion, after correction for the number of comparisons."
    return TableColumn("verdict", meaning, value=lambda row: row.verdict, is_text=True, words=words)
