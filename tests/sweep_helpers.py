"""Small searches: an experiment on a bowl without data, and studies that are told scores instead of training."""

import json
import math
from pathlib import Path

import pytest
import yaml

from clipbench.planning.build import prepare
from clipbench.planning.find_contenders import contenders
from clipbench.search.scoring import PointResult
from clipbench.search.settings import search_settings
from clipbench.search.storage import storage_at
from clipbench.search.study import Study

# After one step the bowl is at its bottom with a pace of 1 / lr.
OWN = '''
import torch
from torch import nn

from clipbench import strategy


@strategy(per="model", search=(1e-1, 1e1))
def pace(n, threshold, power: float = 1.0):
    """Go `threshold` times as far.

    threshold * g    own
    """
    return (threshold**power).expand_as(n).clone(), n > -1


class Bowl(nn.Module):
    def __init__(self, start: float = 3.0):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([start]))

    def forward(self):
        return self.x.square() / 2
'''
PACE = {"name": "./own.py:pace", "threshold": {"log": [0.1, 10], "points": 3}}
BOWL = {
    "name": "bowl",
    "model": {"name": "./own.py:Bowl"},
    "optimizer": {"name": "sgd", "lr": 0.5},
    "train": {"steps": 1, "loss": "output"},
    "clip": ["none", PACE],
    "seeds": 1,
    "sweep": {"trials": 12, "seeds": 1, "batch": 4, "confirm_seeds": 2},
}
BOTTOM = 2.0


def bowl(folder: Path, sweep=None, **changes) -> Path:
    (folder / "own.py").write_text(OWN)
    path = folder / "bowl.yaml"
    path.write_text(yaml.safe_dump(BOWL | changes | {"sweep": BOWL["sweep"] | (sweep or {})}))
    return path


def plan_and_search(path: Path):
    plan = prepare(str(path))
    return plan, search_settings(plan), [contender for contender in contenders(plan) if contender.hyperparameters]


def opened(folder: Path, url=None):
    """The storage of a folder, of which nothing is to be said."""
    return storage_at(url).open(folder, pytest.fail)


def study(path: Path, storage=None) -> Study:
    """The study of `pace`."""
    _, search, contenders = plan_and_search(path)
    (contender,) = [each for each in contenders if each.name != "none"]
    return Study(contender, search, storage or opened(path.parent))


def told(*scores: float, **changes) -> PointResult:
    values = {"lanes": 1, "diverged": 0, "epochs": 1, "worst": scores, **changes}
    return PointResult(scores=scores, deviations=tuple(0.0 for _ in scores), **values)


def minimise(searched: Study, function) -> float:
    """Ask and tell until nothing is left; the threshold that was found."""
    while searched.left:
        for point in searched.ask(searched.search.batch):
            searched.tell(point, told(function(point.values["threshold"])))
    return float(searched.winner().values["threshold"])


def smooth(threshold: float) -> float:
    """A validation loss over thresholds as it looks: a valley on a log axis, flat far away."""
    return 1 - math.exp(-((math.log10(threshold) - math.log10(BOTTOM)) ** 2))


def ledger(results: Path, name: str = "bowl") -> dict:
    return json.loads((results / name / "sweep.json").read_text())
