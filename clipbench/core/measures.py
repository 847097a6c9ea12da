"""Every column of the store that is not an option: what it means, its type, unit and direction, and where it is used.

The store takes its types from here; reports, searches, claims, `train.target` and `train.early_stop` which names they
accept and which way is better; the documentation its tables. A name ending in `/*` stands for the loss and every
metric of a trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

# The records of a trial hold its final values. Where one namespace holds the series too (MLflow), the name of a value
# in a series begins with its table: `epoch/val/loss` beside the final `val/loss`.
EPOCH_PREFIX, STEP_PREFIX = "epoch/", "step/"


@dataclass(frozen=True)
class Column:
    """One column, or one pattern such as `val/*`."""

    name: str
    meaning: str
    type: type = float
    unit: str = ""
    higher_is_better: bool | None = None  # None: neither, or by the metric
    compared: bool = False  # may be named by report.metric, sweep.objective and claims
    uses_test_data: bool = False  # must not be a search objective
    uses_validation_data: bool = False
    monitored: bool = False  # may be named by train.target and train.early_stop
    option: bool = False  # part of the trial's definition, not a measurement
    fixed: bool = False  # follows from the trial's definition, whatever training does

    @property
    def named_by(self) -> tuple[str, ...]:
        """The places in the YAML that may name it."""
        if self.monitored:
            return "train.target", "train.early_stop"
        if not self.compared:
            return ()
        return ("report.metric", "claims") if self.uses_test_data else ("report.metric", "sweep.objective", "claims")

    def names(self, metrics: Iterable[str]) -> Iterator[str]:
        """The column's name, or one for the loss and each metric."""
        if self.name.endswith("/*"):
            yield from (f"{self.name[:-1]}{metric}" for metric in ("loss", *metrics))
        else:
            yield self.name


ARM = Column("arm", "The strategy at one threshold: `norm@1.0`.", str, option=True)
SEED = Column("seed", "The trial's seed.", int, option=True)

STEP = (
    Column("id", "The trial.", str),
    ARM,
    SEED,
    Column("step", "The step, counted from 1.", int),
    Column("train/loss", "Loss of the batch, before the update.", higher_is_better=False),
    Column("grad_norm/pre", "Norm of the gradient before clipping."),
    Column("grad_norm/post", "Norm of the gradient after clipping."),
    Column("grad_max/pre", "Largest absolute element of the gradient before clipping."),
    Column(
        "clip/fired",
        "1 where the rule clipped. Rules on norms: the norm was above the threshold at any of their places. "
        "Elementwise rules: an element changed. `skip` and `drop`: the step was refused. `normalize`: always.",
    ),
    Column(
        "clip/fraction",
        "Share of the model's elements at places where the rule clipped (rules on norms), or that changed (elementwise "
        "rules); 1 where `skip` refused the step.",
        unit="share",
    ),
    Column(
        "clip/cosine",
        "Cosine between the gradient before and after clipping: 1 if its direction is kept. 1 where there was no "
        "gradient, 0 if the clipped gradient is zero.",
    ),
    Column("grad/nonfinite", "1 where the gradient holds an infinity or NaN."),
    Column("model_name", "Of the models that a script attaches, the one whose step it is, if there are several.", str),
)

EPOCH = (
    Column("id", "The trial.", str),
    ARM,
    SEED,
    Column("epoch", "The epoch, counted from 1.", int),
    Column("train/loss", "Mean of `train/loss` over the epoch's steps.", higher_is_better=False, monitored=True),
    Column(
        "val/*",
        "The loss and each metric on the validation data, in eval mode; empty in epochs that `evaluate_every` skips.",
        monitored=True,
        uses_validation_data=True,
    ),
    Column("weight_norm", "Norm of all trained weights."),
    Column("grad_norm/pre_p50", "Median of `grad_norm/pre` over the epoch's steps."),
    Column("grad_norm/pre_p90", "90th percentile of `grad_norm/pre` over the epoch's steps."),
    Column("grad_norm/pre_p99", "99th percentile of `grad_norm/pre` over the epoch's steps."),
    Column(
        "grad/vanishing",
        "Share of the gradient's elements below 1e-8 in absolute value, at the epoch's last step.",
        unit="share",
    ),
)

END = (
    Column("id", "Hash of the trial's content.", str),
    Column(
        "status",
        "`finished`, `diverged`, `failed`, or `pruned` where a search stopped the trial early: a pruned trial has what "
        "was measured until then and no test measures, and no comparison uses it.",
        str,
    ),
    ARM,
    Column(
        "strategy", "The rule, with the options that are not at their default: `norm(per=tensor)`.", str, option=True
    ),
    Column("threshold", "The threshold; empty where it is off or the rule has none.", option=True),
    SEED,
    Column("data", "Name of the data set.", str, option=True),
    Column("model", "Name of the model.", str, option=True),
    Column("optimizer", "Name of the optimizer.", str, option=True),
    Column("lr", "The learning rate.", option=True),
    Column("fingerprint", "Hash of the data's content.", str, option=True),
    Column("test/*", "The loss and each metric on the test data.", compared=True, uses_test_data=True),
    Column(
        "val/*",
        "The loss and each metric on the validation data.",
        compared=True,
        uses_validation_data=True,
    ),
    Column("best_val/*", "The best value of `val/*` over the epochs.", compared=True, uses_validation_data=True),
    Column("train/*", "The loss and each metric on the training data, in eval mode.", compared=True),
    Column(
        "train/loss_tail",
        "Mean of the steps' `train/loss` over the second half of training.",
        higher_is_better=False,
        compared=True,
    ),
    Column(
        "train/loss_tail_p50",
        "Median of the steps' `train/loss` over the second half of training.",
        higher_is_better=False,
        compared=True,
    ),
    Column(
        "train/loss_tail_p99",
        "99th percentile of the steps' `train/loss` over the second half of training.",
        higher_is_better=False,
        compared=True,
    ),
    Column(
        "train/late_fall",
        "Share of the fall of the steps' `train/loss`, from the first tenth of training to the last, that took place "
        "in the last tenth: about 0 after it has settled, 0.1 if it fell evenly. Empty below 20 steps, and if it did "
        "not fall.",
    ),
    Column("weight_norm", "Norm of all trained weights.", higher_is_better=False, compared=True),
    Column(
        "generalization_gap",
        "`test/loss` minus `train/loss`.",
        higher_is_better=False,
        compared=True,
        uses_test_data=True,
    ),
    Column(
        "epochs_to_target",
        "The first epoch whose measure reached `train.target`; empty if none did.",
        unit="epochs",
        higher_is_better=False,
        compared=True,
    ),
    Column("diverged", "1 if the trial diverged, else 0.", int, higher_is_better=False, compared=True),
    Column("diverged_step", "The step at which the trial diverged, counted from 1.", int, compared=True),
    Column("diverged_cause", "`loss`, `gradient`, `weights`, or `loss above ...`.", str),
    Column("clip/fired_share", "Mean of `clip/fired` over the steps.", unit="share", compared=True),
    Column("clip/cosine", "Mean of `clip/cosine` over the steps.", compared=True),
    Column("grad_norm/pre_p50", "Median of `grad_norm/pre` over the steps.", compared=True),
    Column(
        "grad/vanishing",
        "Mean of `grad/vanishing` over the epochs.",
        unit="share",
        higher_is_better=False,
        compared=True,
    ),
    Column(
        "membership_advantage",
        "Success of a membership inference attack by a threshold on the loss: the maximum over thresholds of its true "
        "minus its false positive rate, on the first 1,000 training and test examples. 0: no better than guessing.",
        higher_is_better=False,
        compared=True,
        uses_test_data=True,
    ),
    Column("parameters", "Number of trained weights.", int, compared=True, fixed=True),
    Column(
        "seconds",
        "Training time: the trial's share of the time of the trials that were trained with it.",
        unit="s",
        higher_is_better=False,
        compared=True,
    ),
    Column(
        "step_us",
        "Time of a step: the chunk's time shared over the steps of its lanes, corrected by each rule's own cost, which "
        "is measured at every sixteenth step (on a CPU).",
        unit="µs",
        higher_is_better=False,
        compared=True,
    ),
    Column(
        "weight_sparsity", "Share of weights that are exactly 0.", unit="share", higher_is_better=True, compared=True
    ),
    Column("epochs", "Epochs of the whole training; of a pruned trial, the epochs that it was trained.", unit="epochs"),
    Column("stopped_epoch", "The epoch after which `train.early_stop` ended the trial; else empty.", unit="epochs"),
    Column("epsilon", "Privacy budget that an arm with `noise` spent at its `delta`, where it can be computed."),
    Column(
        "initial_weights", "Hash of the initial weights of a script's model. Arms of a seed must have the same.", str
    ),
    Column("first_batches", "Hash of the first batches of a script. Arms of a seed must have the same.", str),
    Column("engine", "How the trial was trained: by the method of the gradient, or by a `script`.", str),
    Column("engine_note", "Why the trial was not trained by the fastest method.", str),
    Column("device", "Where the trial was trained.", str),
    Column("error", "Why the trial failed.", str),
)

TABLES = {"steps": STEP, "epochs": EPOCH, "records": END}
PARTS = tuple(column.name.removesuffix("/*") for column in END if column.name.endswith("/*"))
OPTIONS = frozenset(column.name for column in END if column.option)
TYPES = {column.name: column.type for columns in TABLES.values() for column in columns}
DIRECTIONS = {column.name: column.higher_is_better for column in END if column.compared and "*" not in column.name}
# Neither better nor worse: where a claim compares them, `>` is larger.
NEUTRAL = tuple(name for name, higher in DIRECTIONS.items() if higher is None)


def compared(metrics: Iterable[str]) -> tuple[str, ...]:
    """The names that report.metric, sweep.objective and claims may use, where a trial has these metrics."""
    return tuple(name for column in END if column.compared for name in column.names(metrics))


def monitored(metrics: Iterable[str]) -> tuple[str, ...]:
    """The names that train.target and train.early_stop may use: what is measured after every epoch."""
    return tuple(name for column in EPOCH if column.monitored for name in column.names(metrics))


def final(name: str) -> Column | None:
    """The column of the records that holds a final value of this name."""
    exact = next((column for column in END if column.name == name), None)
    pattern = f"{name.partition('/')[0]}/*"
    return exact or next((column for column in END if column.name == pattern), None)


def is_fixed(name: str) -> bool:
    """Whether a final value of this name does not depend on training."""
    column = final(name)
    return column is not None and column.fixed


def higher_is_better(name: str, metrics: Mapping[str, bool]) -> bool | None:
    """Whether a higher value is better; None where it is neither or not known. `metrics` has that of each metric."""
    part, _, metric = name.rpartition("/")
    known = {**DIRECTIONS, "loss": False, **metrics}
    return known[name] if name in known else known.get(metric) if part in PARTS else None


def unit(name: str) -> str:
    """The unit of a final value: `%` for accuracies, which are shown in per cent, and empty where there is none."""
    column = final(name)
    return "%" if name.endswith("accuracy") else column.unit if column else ""
