"""What each column means, for whoever points at it; `legend` says the same at the end of a text."""

from __future__ import annotations

from clipbench.analysis.report_model import Metric

ARM = "A clipping strategy at one threshold; * marks the threshold that validation chose."
VERDICT = "What the seeds show beside the baseline, after correction for the number of comparisons."
P_HOLM = (
    "Two-sided p of the paired sign-flip permutation test of the difference, corrected by Holm for all rows "
    "compared with the baseline."
)
DZ = "Cohen's dz: the mean difference by seed over the standard deviation of the differences."
WINS = "Seeds on which the arm was better, equal and worse than the baseline; a diverged trial loses."
DIVERGED = "Seeds whose loss, gradient or weights became not finite, of all seeds."
REACH = "Median epochs until the target was reached; a trial that never reached it counts as later than all others."
REACHED = "Seeds that reached the target, of all; a diverged one did not."
RESTRICTED = (
    "Mean epochs until the target was reached, where a seed that never reached it counts with all epochs that it was "
    "given: the area under the share that is still waiting. Never a mean over those that made it."
)
P_REACH = (
    "Two-sided p of the log-rank test that the arm and the baseline reach the target at the same rate; seeds that "
    "never did are censored at the last epoch. Groups of seeds are compared, not pairs, and nothing is corrected."
)
NORM = "Median over steps and seeds of the gradient norm before clipping."
CLIPPED = "Share of steps on which the rule fired, over all seeds."
ELEMENTS = "Share of the gradient's elements that the rule changed."
NESTED = (
    "The same difference without the optimism of choosing on the seeds that are reported: for each seed, the "
    "threshold that the other seeds find best on validation."
)
PLATEAU = "One standard error of the best mean: how far it would move by chance if other seeds were drawn."
FLAGS = "What to know before using this arm; never a reason by itself to reject it."
OTHERWISE = (
    "A diverged trial is ranked below every trial that finished. This says what would be concluded if such trials "
    "were left out of every number and every choice."
)
NOTES = "What was decided by a rule, left out, or could not be shown; only where it applies."
SIZE = (
    "An arm is a strategy at one threshold; a trial is one training of an arm with one seed. All arms of a setting "
    "share data, model, optimizer and training options."
)
STEP = "Microseconds that one training step of one trial took."


def metric(measured: Metric) -> str:
    better = "higher" if measured.higher_is_better else "lower"
    return f"Mean {measured.name} over seeds ± half of its 95 % t interval; {better} is better."


def criterion(name: str) -> str:
    return f"Mean {name} over seeds: what chose each strategy's threshold. The test data chose nothing."


def difference(baseline: str) -> str:
    return (
        f"Mean difference to {baseline} paired by seed, with half of its 95 % t interval; turned so that positive "
        "is better."
    )
