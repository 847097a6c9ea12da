"""The names of what is measured, as report, sweep, claims and `train.target` may say them."""

from __future__ import annotations

from clipbench.config.coerce import show
from clipbench.errors import did_you_mean
from clipbench.plugins.registry import catalogue

PARTS = ("test", "val", "best_val", "train")
ALONE = (
    "train/loss_tail",
    "train/loss_tail_p50",
    "train/loss_tail_p99",
    "weight_norm",
    "generalization_gap",
    "epochs_to_target",
    "diverged",
    "diverged_step",
    "clip/fired_share",
    "clip/cosine",
    "grad_norm/pre_p50",
    "grad/vanishing",
    "membership_advantage",
    "parameters",
    "seconds",
    "step_us",
    "weight_sparsity",
)


def unknown_measure(name: object, own: tuple[str, ...] = (), *, per_epoch: bool = False) -> tuple[str, str]:
    """What is wrong with the name of a measure, and the way out; two empty texts if it is known.

    `own` are metrics of the user's; `per_epoch` asks for what is measured after every epoch.
    """
    if not isinstance(name, str):
        return f"expected the name of a measure, got {show(name)}.", "Write for example test/accuracy."
    metrics = ("loss", *catalogue("metric"), *own)
    if per_epoch:
        known = ["train/loss", *(f"val/{metric}" for metric in metrics)]
    else:
        known = [*(f"{part}/{metric}" for part in PARTS for metric in metrics), *ALONE]
    return ("", "") if name in known else (f"unknown measure {name!r}.", did_you_mean(name, known))
