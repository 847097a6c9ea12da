"""What follows the gradient in a training step of one lane: noise, clipping, the optimizer, and what is recorded.

It is a pure function from tensors to tensors, by name. The engine lowers it to compiled kernels together with the
gradient, runs it for many lanes by `vmap`, or calls it as it is. See `state` for the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from clipbench.core.trial import Trial
from clipbench.engine.clipping import lane_order, places
from clipbench.engine.clipping.adaptive_threshold import AdaptiveThreshold
from clipbench.engine.clipping.clip import Clip, Clipped, change_weights, count_places
from clipbench.engine.clipping.measured import Measured
from clipbench.engine.clipping.rule import Now, Rule, initial_state
from clipbench.engine.clipping.threshold_groups import threshold_groups
from clipbench.engine.gradients.microbatches import Scope
from clipbench.engine.optimizers import Update, rate_of

Values = Mapping[str, Tensor]
Shapes = Mapping[str, torch.Size]

# The statistics of a step; the first seven are the columns of the `steps` table.
LOSS, PRE, POST, MAX, FIRED, FRACTION, COSINE, WEIGHTS = range(8)
COLUMNS = (
    "train/loss",
    "grad_norm/pre",
    "grad_norm/post",
    "grad_max/pre",
    "clip/fired",
    "clip/fraction",
    "clip/cosine",
)
STATISTICS = 8

# So small that no sum of finite weights overflows, and not denormal: the sum is inf or NaN only if a weight is.
TINY = 2.0**-90


@dataclass
class Step:
    """The step of lanes that share a rule and an optimizer; thresholds and learning rates may differ."""

    trial: Trial  # one of them
    shapes: Shapes  # of the trained parameters
    scope: Scope
    update: Update | None  # the optimizer's formula; None: an optimizer of the user's own steps between the two halves
    idle: frozenset[str]  # parameters without a gradient: no optimizer changes them
    exact: bool  # whether the kernels compute norms in double

    def __post_init__(self) -> None:
        clip = self.trial.clip
        self.groups = threshold_groups(clip, self.shapes)
        self.is_off = lane_order.grouping_key(clip) == lane_order.OFF or not self.groups
        self.rule = Rule(clip)
        self.on_weights = not self.is_off and self.rule.on_weights
        self.on_updates = not self.is_off and lane_order.clips_updates(clip)
        self.on_gradients = not (self.is_off or self.on_weights or self.on_updates)
        self.refuses = self.on_gradients and self.rule.refuses
        self.error_if_nonfinite = bool(clip.as_dict().get("error_if_nonfinite"))
        self.parts = self.scope.clipped_parts
        self.adaptive = AdaptiveThreshold.of(clip) if self.on_gradients and self.parts else None
        self.rates = {name: rate_of(self.trial.optimizer, name) for name in self.shapes}
        self.one_of_each_rate = {rate: name for name, rate in self.rates.items()}  # a parameter that has it

    def __call__(self, values: Values) -> dict[str, Tensor]:
        """Return the new values: weights, slots of the optimizer, memory of the rule, and the statistics."""
        new = self.clip_gradient(values)
        new |= self.optimize({**values, **new})
        return new | self.record({**values, **new, **{f"old.{name}": values[f"params.{name}"] for name in self.shapes}})

    # The halves before and after the optimizer

    def clip_gradient(self, values: Values) -> dict[str, Tensor]:
        """Return the gradient that the optimizer gets, and the statistics of the raw one and of the rule."""
        grads = self._named(values, "grads")
        if self.trial.train.noise:
            noise = places.separated(values["noise"].unsqueeze(0), {n: g[:1] for n, g in grads.items()})
            grads = {name: g + noise[name] for name, g in grads.items()}
        raw = self._average(values, grads) if self.scope.parts else grads
        grads = grads if self.parts else raw
        measured, loss = Measured(raw, self.exact), self._loss(values)
        clipped = self._clipped(values, grads, measured)
        row = {LOSS: loss, PRE: measured.norm[0, 0], MAX: measured.maximum[0, 0], POST: clipped.post[0]}
        row |= {FIRED: clipped.fired[0], FRACTION: clipped.fraction[0], COSINE: clipped.cosine[0]}
        keep = {} if clipped.keep is None else {"keep": clipped.keep[0]}
        return (
            {f"gradient.{name}": g[0] for name, g in clipped.tensors.items()}
            | {f"memory.{name}": value for name, value in clipped.memory.items()}
            | {f"row.{number}": value for number, value in row.items()}
            | keep
        )

    def optimize(self, values: Values) -> dict[str, Tensor]:
        """Return the new weights, and the slots and the number of steps of the optimizer."""
        assert self.update is not None
        t = values["t"] + 1
        new: dict[str, Tensor] = {}
        for name, w in self._named(values, "params").items():
            if name in self.idle:
                continue
            slots = {slot: values[f"slots.{slot}.{name}"] for slot in self.update.slots[name]}
            lr = values[self.rates[name]]
            weights, changed = self.update(name, w, values[f"gradient.{name}"], slots, t, lr)
            new[f"params.{name}"] = weights
            new |= {f"slots.{slot}.{name}": value for slot, value in changed.items()}
        new["t"] = t
        if "keep" in values:  # a refused step leaves everything as it was
            new = {name: torch.where(values["keep"], value, values[name]) for name, value in new.items()}
        return new

    def record(self, values: Values) -> dict[str, Tensor]:
        """Return what the optimizer's step is changed to by the rule, and the row of statistics."""
        params, new = self._named(values, "params"), dict[str, Tensor]()
        row = {number: values[f"row.{number}"] for number in range(WEIGHTS)}
        if self.on_weights:
            params, row[FRACTION], new = self._changed_weights(values, params)
            row[FIRED] = (row[FRACTION] > 0).to(row[PRE].dtype)
            row[FRACTION] = row[FRACTION] / sum(shape.numel() for shape in self.shapes.values())
        elif self.on_updates:
            params, clipped = self._clipped_update(values, params)
            new = {f"memory.{name}": value for name, value in clipped.memory.items()}
            row |= {POST: clipped.post[0], FIRED: clipped.fired[0], FRACTION: clipped.fraction[0]}
            row[COSINE] = clipped.cosine[0]
        if self.trial.train.ema is not None:
            new |= {f"average.{name}": self._averaged(values, name, w) for name, w in params.items()}
        finite = [w.mean() if self.exact else (w * TINY).sum() for w in params.values()]
        row[WEIGHTS] = torch.stack(finite).sum()
        stacked = torch.stack([row[number] for number in range(STATISTICS)])
        return new | {f"params.{name}": w for name, w in params.items()} | {"row": stacked}

    def _averaged(self, values: Values, name: str, weights: Tensor) -> Tensor:
        """Return the moving average of weights, which begins with those of the first step."""
        average = values[f"average.{name}"]
        moved = average + (1 - self.trial.train.ema) * (weights - average)  # type: ignore[operator]
        return torch.where(values["step"] <= 1, weights, moved)

    # Clipping

    def _clipped(self, values: Values, grads: dict[str, Tensor], measured: Measured) -> Clipped:
        if self.parts:
            return self._clipped_parts(values, grads, measured)
        if self.on_gradients:
            return self._clip(values, measured)
        return _unchanged(measured)

    def _clip(self, values: Values, measured: Measured) -> Clipped:
        weights = {name: w.unsqueeze(0) for name, w in self._named(values, "params").items()}
        clip = Clip(self.rule, self.groups, self.exact)
        return clip(
            measured, Measured(weights, self.exact), self._now(values, len(measured.norm)), self._memory(values)
        )

    def _clipped_parts(self, values: Values, grads: dict[str, Tensor], raw: Measured) -> Clipped:
        """Clip each part of the batch, then average the parts."""
        filled = values["filled"]
        parts = self._clip(values, Measured(grads, self.exact)) if self.on_gradients else None
        if parts is None:
            new, fired, fraction, keep = dict(grads), torch.zeros_like(filled), torch.zeros_like(filled), None
        else:
            new, fired, fraction, keep = dict(parts.tensors), parts.fired, parts.fraction, parts.keep
        if keep is not None:  # refused parts are left out, by `where`: they may not be finite
            new = {n: torch.where(keep.view(-1, *[1] * (g.dim() - 1)), g, 0.0) for n, g in new.items()}
        average = self._average(values, new)
        if self.on_gradients and self.trial.clip.as_dict().get("noise"):
            average = self._with_privacy_noise(values, average)
        before, after = places.joined(raw.tensors), places.joined(average)
        norm, post = raw.norm[:, 0], places.norm(after, 2.0, self.exact)
        along = (after * (before / norm.unsqueeze(1))).sum(1)
        nothing = (norm == 0).to(norm.dtype)
        return Clipped(
            tensors=average,
            post=post,
            fired=(fired * filled).amax(0, keepdim=True),
            fraction=(fraction * filled).sum(0, keepdim=True) / filled.sum(),
            cosine=torch.where((norm > 0) & (post > 0), along / post, nothing),
            keep=None if keep is None else ((keep.to(filled.dtype) * filled).amax(0, keepdim=True) > 0),
            memory={} if parts is None else parts.memory | self._moved_threshold(values, fired),
        )

    def _average(self, values: Values, grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shares = values["shares"].unsqueeze(0)
        return {n: (shares @ g.reshape(len(g), -1)).view(1, *g.shape[1:]) for n, g in grads.items()}

    def _with_privacy_noise(self, values: Values, grads: dict[str, Tensor]) -> dict[str, Tensor]:
        drawn = places.separated(values["privacy"].unsqueeze(0), grads)
        deviation = self._threshold(values) * values["privacy_share"]
        return {n: g + torch.where(deviation > 0, deviation * drawn[n], 0.0) for n, g in grads.items()}

    def _clipped_update(self, values: Values, params: dict[str, Tensor]) -> tuple[dict[str, Tensor], Clipped]:
        """Clip the update u = (w_old - w_new) / lr; where a rule leaves it as it is, the weights stay as they are."""
        rates = {rate: torch.where(values[rate] == 0, 1.0, values[rate]) for rate in self.one_of_each_rate}
        lr = {name: rates[rate] for name, rate in self.rates.items()}
        old = self._named(values, "old")
        updates = {name: ((old[name] - w) / lr[name]).unsqueeze(0) for name, w in params.items()}
        clipped = self._clip({**values, **{f"params.{n}": w for n, w in old.items()}}, Measured(updates, self.exact))
        new = {
            name: torch.where(u[0] == updates[name][0], params[name], old[name] - lr[name] * u[0])
            for name, u in clipped.tensors.items()
        }
        return new, clipped

    def _changed_weights(
        self, values: Values, params: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
        def rows(kind: str) -> dict[str, Tensor]:
            return {name: t.unsqueeze(0) for name, t in self._named(values, kind).items()}

        new, changed, memory = change_weights(
            self.rule, self.groups, rows("params"), rows("old"), rows("gradient"), self._now(values, 1),
            self._memory(values), self.exact,
        )  # fmt: skip
        return {name: w[0] for name, w in new.items()}, changed, {f"memory.{n}": v for n, v in memory.items()}

    # Values by name

    def _named(self, values: Values, kind: str) -> dict[str, Tensor]:
        return {name: values[f"{kind}.{name}"] for name in self.shapes}

    def _memory(self, values: Values) -> dict[str, Tensor]:
        return {name: values[f"memory.{name}"] for name in self.rule.init}

    def _now(self, values: Values, rows: int) -> Now:
        return Now(self._threshold(values).expand(rows, 1), values["on"], values["step"])

    def _threshold(self, values: Values) -> Tensor:
        return values["threshold"] * values["memory.adapted"] if self.adaptive else values["threshold"]

    def _moved_threshold(self, values: Values, fired: Tensor) -> dict[str, Tensor]:
        """Return what the threshold is multiplied by at the next step, by the share of examples that were clipped."""
        if self.adaptive is None:
            return {}
        filled, factor = values["filled"], values["memory.adapted"]
        unclipped, drawn = ((1 - fired) * filled).sum(), values["counts"][0]
        moved = self.adaptive.moved(factor, values["threshold"], unclipped, filled.sum(), drawn)
        return {"adapted": torch.where(values["on"] > 0, moved, factor)}

    def _loss(self, values: Values) -> Tensor:
        if not self.scope.parts:
            return values["loss"][0]
        shares = values["shares"]
        return (values["loss"] * (shares / shares.sum())).sum()

    def initial(self, lanes: int, like: Tensor) -> dict[str, Tensor]:
        """Return the initial memory of the rule, and slots and number of steps of the optimizer: [lanes, ...]."""
        start = {"t": like.new_zeros(())} | ({} if self.is_off else self._initial_memory(like))
        for name, shape in self.shapes.items():
            for slot, (number, is_scalar) in (self.update.slots[name] if self.update else {}).items():
                start[f"slots.{slot}.{name}"] = like.new_full(() if is_scalar else shape, number)
        return {name: value.expand(lanes, *value.shape).clone() for name, value in start.items()}

    def _initial_memory(self, like: Tensor) -> dict[str, Tensor]:
        """Return what the rule remembers of each of its places: [rows, places, ...]."""
        tensors = [{name: like.new_empty(1, *self.shapes[name]) for name in group.names} for group in self.groups]
        count = sum(count_places(self.rule, Measured(each, self.exact)) for each in tensors)
        rows = like.new_empty(max(self.parts, 1), count)
        state = initial_state(self.rule.init, self.trial.clip.as_dict(), rows)
        state |= {"adapted": like.new_ones(())} if self.adaptive else {}
        return {f"memory.{name}": value for name, value in state.items()}


def _unchanged(measured: Measured) -> Clipped:
    norm = measured.norm[:, 0]
    zero = torch.zeros_like(norm)
    return Clipped(dict(measured.tensors), norm, zero, zero, torch.ones_like(norm), None, {})
