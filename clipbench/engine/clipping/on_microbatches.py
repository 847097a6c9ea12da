"""Rules on the parts of batches: each part is clipped as a lane of its own, then all parts of a lane are averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clipbench.core.trial import Trial
from clipbench.engine.clipping.groups import Clipping
from clipbench.engine.clipping.lane_runs import StepRun
from clipbench.engine.clipping.privacy import PrivateNoise
from clipbench.engine.clipping.safe_norms import along, either, norms_after
from clipbench.engine.gradients.microbatches import Parts
from clipbench.engine.model.stacked import Blocks
from clipbench.engine.telemetry import COSINE, FIRED, FRACTION, POST, PRE, Telemetry
from clipbench.plugins import registry


class PartClipping:
    """All the rules of a chunk that look at parts of the batch; used as `Clipping` is."""

    def __init__(
        self, trials: Sequence[Trial], params: Blocks, grads: Blocks, telemetry: Telemetry, steps: int, parts: Parts
    ) -> None:
        self._params, self._grads, self._telemetry, self._parts = params, grads, telemetry, parts
        each = [trial for trial in trials for _ in range(parts.scope.parts)]
        weigh = any("w" in registry.of("strategy", trial.clip).given for trial in trials)
        self._weights = parts.blocks(params) if weigh else None
        self._measured = Telemetry(1, None, parts.grads)
        self._rules = Clipping(each, self._weights, parts.grads, self._measured, steps)
        self._raw, self._new, self._scratch = grads.storage.new_empty(3, len(trials), grads.size)
        self._there = parts.there(0)
        self.refuses = self._rules.refuses[:: parts.scope.parts]
        self.choosy = [PartsKept(run, parts.scope.parts) for run in self._rules.choosy]
        noisy = any(trial.clip.as_dict().get("noise") for trial in trials)
        self._noise = PrivateNoise(trials, grads, parts.scope.expected) if noisy else None

    def gather(self, examples: int, loss: Tensor) -> None:
        """Average the raw gradients and losses of the parts."""
        self._there = self._parts.there(examples)
        for kept in self.choosy:
            kept.there = self._there > 0
        self._parts.average_loss(examples, loss)
        self._parts.average(examples, self._grads)

    def __call__(self, examples: int, timed: bool = False) -> None:
        """Clip the parts, and put their average in the place of the raw one."""
        _copy_lanes(self._grads, self._raw)
        if self._weights is not None:
            self._parts.repeat(self._params, self._weights)
        self._measured.before(self._parts.loss)
        self._rules(examples, timed)
        for kept in self.choosy:
            kept.drop_refused(self._parts)
        self._rules.finish(self._measured.row.unsqueeze(0))
        self._parts.average(examples, self._grads)
        if self._noise:
            self._noise(self._thresholds())
        self._measure()

    def after_step(self, step: int, rates: Callable[[], Sequence[float]], timed: bool = False) -> None:
        """Rules on parts do nothing then."""

    def finish(self, steps: Tensor) -> None:
        """The columns were worked out at each step."""

    def take(self, other: PartClipping, lanes: Sequence[int], steps: int) -> None:
        """Go on where the rules of another have come to, of whose lanes these are some."""
        parts = self._parts.scope.parts
        self._rules.take(other._rules, [lane * parts + part for lane in lanes for part in range(parts)], steps)
        if self._noise and other._noise:
            self._noise.take(other._noise)

    def put(self, other: PartClipping, lanes: Sequence[int], steps: int) -> None:
        """Nothing was measured but what the steps say."""

    def timed(self, lane: int) -> tuple[float, int]:
        seconds, timings = self._rules.timed(lane * self._parts.scope.parts)
        return seconds * self._parts.scope.parts, timings

    def _measure(self) -> None:
        """What became of the average; the rule fired if it did on any part, and the fraction is the parts' mean."""
        row, before = self._telemetry.row, self._telemetry.row[PRE]
        _copy_lanes(self._grads, self._new)
        odd = either(self._telemetry.odd, norms_after(self._new, out=row[POST]))
        along(self._new, self._raw, before, odd, out=row[COSINE], scratch=self._scratch)
        nothing = (before == 0).to(before.dtype)
        row[COSINE] = torch.where((before > 0) & (row[POST] > 0), row[COSINE] / row[POST], nothing)
        fired, fraction = (self._parts.split(self._measured.row[name]) * self._there for name in (FIRED, FRACTION))
        torch.amax(fired, dim=1, out=row[FIRED])
        row[FRACTION] = fraction.sum(1) / self._there.sum()

    def _thresholds(self) -> Tensor:
        """Of each lane, at this step."""
        limits = self._parts.loss.new_zeros(self._parts.count)
        for run in self._rules.runs:
            for rule, lanes in run.rules:
                if rule.threshold is not None:
                    limits[lanes] = rule.threshold.view(-1)
        return self._parts.split(limits)[:, 0]


class PartsKept:
    """Lanes whose rule refuses parts: those are left out, and without any part there is no step."""

    there: Tensor

    def __init__(self, run: StepRun, parts: int) -> None:
        self._run, self._parts = run, parts
        self.lanes = slice(run.lanes.start // parts, run.lanes.stop // parts)

    @property
    def keep(self) -> Tensor:
        return (self._run.keep.view(-1, self._parts) & self.there).any(1)

    def drop_refused(self, parts: Parts) -> None:
        """By `where`: what is refused may not be finite."""
        for block in parts.grads.values():
            mine = block[self._run.lanes].view(self._run.count, -1)
            mine.copy_(torch.where(self._run.keep.unsqueeze(1), mine, 0.0))


def _copy_lanes(blocks: Blocks, into: Tensor) -> None:
    """[lanes, elements]"""
    start = 0
    for name, size in blocks.sizes.items():
        into[:, start : start + size].copy_(blocks[name].view(blocks.lanes, -1))
        start += size
