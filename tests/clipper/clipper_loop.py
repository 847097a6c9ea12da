"""The plain loop of a trial, with its rule carried out by a Clipper."""

from __future__ import annotations

from typing import Any

import torch

from clipbench import datasets
from clipbench.clipper import Clipper
from clipbench.core.trial import Trial
from tests import oracle


class ClipperLoop(oracle.Loop):
    """One trial under way, clipped by `Clipper`."""

    def __init__(self, trial: Trial, **options: Any) -> None:
        super().__init__(trial, datasets.load(trial.data))
        options = {"steps": trial.train.steps, "measure": True} | options
        self.clipper = Clipper(self.model, trial.clip, **options)

    def _rule_and_step(self, loss: float) -> oracle.Step:
        for parameter in self.idle:
            parameter.grad = None
        info = self.clipper.step(self.optimizer)
        pre, post, largest, fired, fraction, cosine = info.statistics.tolist()
        assert info.norm.dim() == info.fired.dim() == info.keep.dim() == 0
        assert (float(info.norm), bool(info.fired)) == (pre, bool(fired))
        return oracle.Step(loss, pre, post, largest, bool(fired), fraction, cosine)


def weights_of(loop: oracle.Loop) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in loop.model.parameters()])
