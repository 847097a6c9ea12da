"""Rules on microbatches: each part of a batch is clipped like a lane, then the parts of each lane are averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clipbench.core.trial import Trial
from clipbench.engine.clipping.chunk_clipping import ChunkClipping
from clipbench.engine.clipping.lane_groups import StepGroup
from clipbench.engine.clipping.privacy import PrivacyNoise
from clipbench.engine.clipping.safe_norms import merged, norms_after, project
from clipbench.engine.gradients.microbatches import Microbatches
from clipbench.engine.model.stacked import StackedTensors
from clipbench.engine.telemetry import COSINE, FIRED, FRACTION, POST, PRE, Telemetry
from clipbench.plugins import registry


class MicrobatchClipping:
    """The rules of a chunk that clip microbatches; same interface as `ChunkClipping`."""

    def __init__(
        self,
        trials: Sequence[Trial],
        params: StackedTensors,
        grads: StackedTensors,
        telemetry: Telemetry,
        steps: int,
        parts: Microbatches,
    ) -> None:
        self._params, self._grads, self._telemetry, self._parts = params, grads, telemetry, parts
        each = [trial for trial in trials for _ in range(parts.scope.parts)]
        needs_weights = any("w" in registry.of("strategy", trial.clip).given for trial in trials)
        self._weights = parts.empty_like(params) if needs_weights else None
        self._measured = Telemetry(1, None, parts.grads)
        self._rules = ChunkClipping(each, self._weights, parts.grads, self._measured, steps)
        self._raw, self._new, self._scratch = grads.storage.new_empty(3, len(trials), grads.size)
        self._filled = parts.filled(0)
        self.refuses = self._rules.refuses[:: parts.scope.parts]
        self.refusing = [MicrobatchRefusals(group, parts.scope.parts) for group in self._rules.refusing]
        noisy = any(trial.clip.as_dict().get("noise") for trial in trials)
        self._noise = PrivacyNoise(trials, grads, parts.scope.expected) if noisy else None

    def gather(self, examples: int, loss: Tensor) -> None:
        """Average the raw gradients and losses of the parts."""
        self._filled = self._parts.filled(examples)
        for refusals in self.refusing:
            refusals.filled = self._filled > 0
        self._parts.average_loss(examples, loss)
        self._parts.average(examples, self._grads)

    def __call__(self, examples: int, timed: bool = False) -> None:
        """Clip the parts, and replace the raw gradient by their average."""
        _copy_lanes(self._grads, self._raw)
        if self._weights is not None:
            self._parts.repeat(self._params, self._weights)
        self._measured.before(self._parts.loss)
        self._rules(examples, timed)
        for refusals in self.refusing:
            refusals.drop_refused(self._parts)
        self._rules.finish(self._measured.row.unsqueeze(0))
        self._parts.average(examples, self._grads)
        if self._noise:
            self._noise(self._thresholds())
        self._measure()

    def after_step(self, step: int, rates: Callable[[], Sequence[float]], timed: bool = False) -> None:
        """Do nothing: these rules do not change updates or weights."""

    def finish(self, steps: Tensor) -> None:
        """Do nothing: the columns are computed at each step."""

    def copy_from(self, other: MicrobatchClipping, lanes: Sequence[int], steps: int) -> None:
        """Continue with the state of some lanes of another, after so many steps."""
        parts = self._parts.scope.parts
        self._rules.copy_from(other._rules, [lane * parts + part for lane in lanes for part in range(parts)], steps)
        if self._noise and other._noise:
            self._noise.copy_from(other._noise)

    def copy_back(self, other: MicrobatchClipping, lanes: Sequence[int], steps: int) -> None:
        """Do nothing: all statistics are in the steps."""

    def timed(self, lane: int) -> tuple[float, int]:
        seconds, timings = self._rules.timed(lane * self._parts.scope.parts)
        return seconds * self._parts.scope.parts, timings

    def _measure(self) -> None:
        """Measure the average; the rule fired if it fired on any part, and the fraction is the mean of the parts."""
        row, before = self._telemetry.row, self._telemetry.row[PRE]
        _copy_lanes(self._grads, self._new)
        to_scale = merged(self._telemetry.to_scale, norms_after(self._new, out=row[POST]))
        project(self._new, self._raw, before, to_scale, out=row[COSINE], scratch=self._scratch)
        nothing = (before == 0).to(before.dtype)
        row[COSINE] = torch.where((before > 0) & (row[POST] > 0), row[COSINE] / row[POST], nothing)
        fired, fraction = (self._parts.split(self._measured.row[name]) * self._filled for name in (FIRED, FRACTION))
        torch.amax(fired, dim=1, out=row[FIRED])
        row[FRACTION] = fraction.sum(1) / self._filled.sum()

    def _thresholds(self) -> Tensor:
        """Return the threshold of each lane at this step."""
        limits = self._parts.loss.new_zeros(self._parts.count)
        for group in self._rules.groups:
            for rule, lanes in group.rules:
                if rule.threshold is not None:
                    limits[lanes] = rule.threshold.view(-1)
        return self._parts.split(limits)[:, 0]


class MicrobatchRefusals:
    """Lanes whose rule may refuse parts: refused parts are left out; a lane without any part takes no step."""

    filled: Tensor

    def __init__(self, group: StepGroup, parts: int) -> None:
        self._group, self._parts = group, parts
        self.lanes = slice(group.lanes.start // parts, group.lanes.stop // parts)

    @property
    def keep(self) -> Tensor:
        return (self._group.keep.view(-1, self._parts) & self.filled).any(1)

    def drop_refused(self, parts: Microbatches) -> None:
        """Set refused gradients to 0, by `where`: they may not be finite."""
        for block in parts.grads.values():
            mine = block[self._group.lanes].view(self._group.count, -1)
            mine.copy_(torch.where(self._group.keep.unsqueeze(1), mine, 0.0))


def _copy_lanes(tensors: StackedTensors, into: Tensor) -> None:
    """Copy all tensors into a matrix [lanes, elements]."""
    for block, columns in zip(tensors.values(), torch.split(into, list(tensors.sizes.values()), dim=1), strict=True):
        columns.copy_(block.view(tensors.lanes, -1))
