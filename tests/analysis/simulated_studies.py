"""Studies whose truth is known: a baseline, `norm` with several thresholds, and others with one, in two settings.

Thousands of them say how often a verdict is wrong, so they are judged without records. `records` are those of the same
trials, for the command.
"""

from dataclasses import dataclass

import numpy as np

from clipbench.analysis import claims, verdicts
from clipbench.analysis.arm_choice import SettingArms
from clipbench.analysis.arms import MEASURES, Arm
from clipbench.analysis.claim_cases import cases
from clipbench.analysis.comparison import Comparison
from clipbench.analysis.contrasts import contrasts_of
from clipbench.analysis.report_model import Metric, ReportOptions
from clipbench.config.claim_language import Vocabulary, read
from clipbench.core.records import Records, as_columns

METRIC = Metric("test/accuracy", True, "val/accuracy")
RATES = ("0.1", "0.2")  # the learning rates of the two settings
EXAMPLES = 36  # of the validation and the test part of wine
OTHERS = ("value", "zero", "agc")


@dataclass(frozen=True)
class Design:
    """How the results of trials are drawn."""

    noise: str = "normal"  # of a trial, around the luck of its seed, which all arms share
    seeds: int = 8
    thresholds: int = 5
    others: int = 1  # strategies with one threshold
    tuned: int = 1  # learning rates of which each arm has its own best
    copied: float = 1.0  # share of the validation result that is the test result
    diverging: float = 0.0  # shares of trials
    broken: float = 0.0  # finished without a finite result
    missing: float = 0.0

    @property
    def unit(self):
        """The size in which gains are counted: the standard deviation of the noise."""
        return 0.05 if self.noise == "counts" else 1.0

    @property
    def arms(self):
        """The strategy, the threshold and the name of each."""
        several = [("norm", float(threshold)) for threshold in range(1, self.thresholds + 1)]
        known = [("none", None), *several, *((name, 1.0) for name in OTHERS[: self.others])]
        names = [strategy if threshold is None else f"{strategy}@{threshold}" for strategy, threshold in known]
        pairs = list(zip(known, names, strict=True))
        if self.tuned > 1:
            pairs = [(arm, f"{name} (lr={rate})") for arm, name in pairs for rate in range(self.tuned)]
        return [(*arm, name) for arm, name in pairs]


DESIGNS = {
    "normal": Design(thresholds=12),
    "validation apart": Design(thresholds=12, copied=0.0),
    "heavy tails": Design("heavy tails"),
    "skewed": Design("skewed"),
    "counts with ties": Design("counts"),
    "divergence": Design(diverging=0.1),
    "not finite": Design("skewed", broken=0.05),
    "missing trials": Design(missing=0.05),
    "few seeds": Design(seeds=5),
    "tuned": Design(thresholds=2, tuned=4),
}


class Study(SettingArms):
    """One setting whose arms are drawn. `gain` is that of a strategy, in units."""

    def __init__(self, rng, design, gain, margin=None):
        super().__init__(None, ReportOptions(margin=margin))
        shape = len(design.arms), design.seeds
        luck = _noise(rng, design, (1, design.seeds))
        gains = design.unit * np.array([[gain(strategy)] for strategy, _, _ in design.arms])
        test, apart = (_results(rng, design, luck, gains, shape) for _ in range(2))
        val = design.copied * test + (1 - design.copied) * apart
        shares = design.diverging, design.broken, design.missing
        diverged, broken, missing = (rng.random(shape) < share for share in shares)
        lost, present = diverged | broken, ~missing
        norms = rng.random(shape)  # so that no two trials end with the same weights
        test[lost | missing] = val[lost | missing] = np.nan
        found = [
            Arm(
                name=name,
                strategy=strategy,
                threshold=threshold,
                value=test[row],
                criterion=val[row],
                present=present[row],
                diverged=(lost & present)[row],
                ranks_last=(lost & present)[row],
                nonfinite=(broken & ~diverged & present)[row],
                measures={**dict.fromkeys(MEASURES, np.full(design.seeds, 0.5)), "weight_norm": norms[row]},
                ids=(name,),
            )
            for row, (strategy, threshold, name) in enumerate(design.arms)
        ]
        # What is otherwise computed from the records.
        known = {"metric": METRIC, "arms": tuple(found), "grain": 1 / EXAMPLES, "epochs": np.nan}
        self.__dict__ |= {"design": design, **known}

    def judge(self):
        """The verdict and the contrast of each arm of the main table."""
        contrasts = contrasts_of(self)
        return {name: (word, contrasts.get(name)) for name, word in verdicts.judge(self, contrasts).items()}

    @property
    def verdicts(self):
        """The verdict of each strategy."""
        strategies = {name: strategy for strategy, _, name in self.design.arms}
        return {strategies[name]: word for name, (word, _) in self.judge().items()}


def _noise(rng, design, shape):
    if design.noise == "skewed":
        return rng.exponential(size=shape)
    return rng.standard_t(2, size=shape) if design.noise == "heavy tails" else rng.normal(size=shape)


def _results(rng, design, luck, gains, shape):
    if design.noise == "counts":
        return rng.binomial(EXAMPLES, np.clip(0.9 + gains + 0.01 * luck, 0, 1), shape) / EXAMPLES
    return luck + gains + _noise(rng, design, shape)


def finding(settings, design, expect, margin=0.0):
    """What a claim finds. `settings` are the studies by learning rate."""
    thresholds = {strategy: (1.0,) for strategy, _, _ in design.arms}
    expectation = read(expect, Vocabulary(thresholds, options={"lr": RATES}))
    left, right = (dict(side.options).get("lr") for side in (expectation.left, expectation.right))
    pairs = zip([left or right] if left or right else RATES, [right or left] if left or right else RATES, strict=True)
    known = [tuple(settings[rate].arms for rate in pair) for pair in pairs]
    found = [case for mine, others in known for case in cases(expectation, mine, others, METRIC)]
    compared = Comparison(tuple(found), 1 / EXAMPLES, 2.0 if expectation.left.minus else 1.0)
    return claims.finding_of(compared, expectation, margin) if compared.ranked.size else claims.Finding("", "")


def answered(settings, design, expect, margin=0.0):
    """The verdict of a claim if it is the only one."""
    found = finding(settings, design, expect, margin)
    return found.tendency if found.is_certain or found.p < claims.LEVEL else claims.INCONCLUSIVE


def records(rng, trials, study_of):
    """The records of these trials, with the results that the studies have."""
    rows = []
    for trial in trials:
        study = study_of(trial)
        arm = next((arm for arm in study.arms if arm.name == trial.arm), None) if study else None
        if arm is None or trial.seed >= len(arm.present) or not arm.present[trial.seed]:
            continue
        is_broken, has_diverged = arm.nonfinite[trial.seed], arm.diverged[trial.seed]
        row = {"id": trial.id, "status": "diverged" if has_diverged and not is_broken else "finished"}
        row |= trial.columns() | {"clip/fired_share": 0.5, "epochs": 2, "diverged": 0, "error": None}
        row |= {"test/accuracy": arm.value[trial.seed], "val/accuracy": arm.criterion[trial.seed]}
        if is_broken:
            row |= {rng.choice(["test/accuracy", "val/accuracy"]): rng.choice([np.inf, -np.inf, np.nan])}
        rows.append(row | {"weight_norm": arm.measures["weight_norm"][trial.seed]})
    ids = np.array([row["id"] for row in rows])
    series = ({"id": ids, name: np.ones(len(ids), np.int32)} for name in ("epoch", "step"))
    return Records(as_columns(rows), *series)
