"""Whole searches without training: the real studies, and trials whose scores are drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import optuna
import pandas as pd
import yaml

from clipbench.analysis.report_model import Report
from clipbench.core.trial import Trial
from clipbench.planning.build import prepare
from clipbench.planning.find_contenders import contenders
from clipbench.planning.plan import Plan
from clipbench.reporting import ReportOptions, compare
from clipbench.search import scoring
from clipbench.search.confirm import Finalist, confirmation_plan
from clipbench.search.settings import SearchSettings, search_settings
from clipbench.search.study import Study

optuna.logging.set_verbosity(optuna.logging.ERROR)

LUCK, NOISE = 0.01, 0.004  # standard deviations of what a seed gives to all arms, and of what is a trial's own
WAVES = 1.0, 2.0, 4.0  # a seed's noise over the logarithm of thresholds: near ones are lucky together
EXPERIMENT = {
    "name": "simulated",
    "data": "digits",
    "model": {"name": "linear"},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "train": {"epochs": 2},
    "seeds": 8,
    "report": {"metric": "test/accuracy", "baseline": "none"},
}
Gain = Callable[[Trial], float]  # what a trial's arm gives


def nothing(trial):
    return 0.0


@dataclass
class Simulated:
    """One sweep. The seeds that are judged by are as many in the search as after it."""

    plan: Plan
    search: SearchSettings
    rng: np.random.Generator
    gain: Gain = nothing
    luck: dict[int, float] = field(default_factory=dict)
    waves: dict[tuple, np.ndarray] = field(default_factory=dict)
    rows: dict[str, dict] = field(default_factory=dict)  # of every trial, by its id
    finalists: list[Finalist] = field(default_factory=list)

    def run(self) -> Report:
        """What the report says of fresh seeds."""
        self.finalists = [self._searched(contender) for contender in contenders(self.plan)]
        return self._compared(self.search.confirm_seeds)

    def on_search_seeds(self) -> Report:
        """What it would say, were the winners judged by the trials that they were chosen by."""
        return self._compared(self.search.seeds)

    def _searched(self, contender) -> Finalist:
        if not contender.hyperparameters:
            return Finalist(contender, {})
        study = Study(contender, self.search, optuna.storages.InMemoryStorage())
        while study.left:
            for point in study.ask(self.search.batch):
                rows = [self._train(trial) for trial in point.trials]
                study.tell(point, scoring.point_result(rows, self.search.objectives, study.worst(point)))
        winner = study.winner()
        assert winner
        return Finalist(contender, winner.values)

    def _train(self, trial: Trial) -> dict:
        if trial.id in self.rows:
            return self.rows[trial.id]
        luck = self.luck.setdefault(trial.seed, LUCK * self.rng.normal())
        score = 0.9 + luck + self.gain(trial) + NOISE * self._noise(trial)
        row = trial.columns() | {"id": trial.id, "status": "finished", "epochs": 2, "error": None}
        row |= {"test/accuracy": score, "val/accuracy": score}
        row |= {"clip/fired_share": 0.4, "grad_norm/pre_p50": 0.9, "step_us": 50.0}
        self.rows[trial.id] = row
        return row

    def _noise(self, trial: Trial) -> float:
        """Of variance 1, half of which the seed's trials at near thresholds have in common."""
        threshold = threshold_of(trial)
        if threshold is None:
            return float(self.rng.normal())
        known = (trial.clip.name, trial.seed)
        wave = self.waves.setdefault(known, self.rng.normal(size=(2, len(WAVES))) / np.sqrt(len(WAVES)))
        angles = np.array(WAVES) * np.log10(threshold)
        common = float(np.sum(wave * [np.cos(angles), np.sin(angles)]))
        return (common + float(self.rng.normal())) / np.sqrt(2)

    def _compared(self, seeds: Sequence[int]) -> Report:
        final = confirmation_plan(self.plan, replace(self.search, confirm_seeds=tuple(seeds)), self.finalists)
        rows = [self._train(trial) for trial in final.trials]
        return compare(pd.DataFrame(rows), ReportOptions(baseline="none", metric="test/accuracy"))


def threshold_of(trial: Trial) -> float | None:
    return trial.clip.as_dict().get("threshold")


def planned(folder, clip, **sweep) -> tuple[Plan, SearchSettings]:
    path = folder / "simulated.yaml"
    settings = {"seeds": 8, "confirm_seeds": 8, "batch": 8, "pruner": "none"} | sweep
    path.write_text(yaml.safe_dump(EXPERIMENT | {"clip": clip, "sweep": settings}))
    plan = prepare(str(path))
    return plan, search_settings(plan)


def simulated(plan: Plan, search: SearchSettings, number: int, gain: Gain = nothing) -> Simulated:
    """The sweep of that number: a study's own seed comes from its name."""
    return Simulated(
        plan, replace(search, experiment=f"{search.experiment} {number}"), np.random.default_rng(number), gain
    )
