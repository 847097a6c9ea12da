"""The plain loop: one model, one `nn.Module`, `backward()`, torch's own clipping and optimizers. Slow and obvious.

It shares nothing with the engine but the functions that build a model, a data set, an optimizer and a loss, and
follows what a seed fixes: initial weights from `torch.manual_seed(seed)`, batches from one `torch.randperm` per epoch
of a generator of the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, ExponentialLR, LambdaLR, LinearLR, StepLR

from clipbench.core.trial import Training, Trial
from clipbench.datasets import Dataset, Stream
from clipbench.plugins import registry

Batch = tuple[Tensor, Tensor]
Clipped = tuple[bool, bool, int | None]
Memory = dict[Any, Any]  # of a rule, for each of its places


@dataclass
class Step:
    """What one step measured."""

    loss: float
    pre: float
    post: float
    maximum: float
    fired: bool
    fraction: float
    cosine: float


@dataclass
class Run:
    steps: list[Step] = field(default_factory=list)
    model: nn.Module | None = None

    def column(self, name: str) -> list[float]:
        return [float(getattr(step, name)) for step in self.steps]


class Loop:
    """One trial under way."""

    def __init__(self, trial: Trial, dataset: Dataset | None) -> None:
        self.trial = trial
        self.dtype = {"float32": torch.float32, "float64": torch.float64}[trial.train.dtype]
        self.model = initial_model(trial, dataset).to(self.dtype).train()
        self.data = _tensors(dataset, self.dtype)
        self.streams = isinstance(dataset, Stream)
        plugin = registry.find("optimizer", trial.optimizer.name, trial.optimizer.folder)
        self.optimizer = plugin.function(self.model.parameters(), **trial.optimizer.as_dict())
        self.run = Run(model=self.model)
        self.memory: Memory = {}
        self.private = torch.Generator().manual_seed(2**31 + trial.seed)
        self.rates = rates(trial.train)
        self.noise = noise(trial, self.model) if trial.train.noise else None

    def train(self, steps: int) -> Run:
        batches = self._batches()
        for _ in range(steps):
            self.step(next(batches))
        return self.run

    def train_until_stopped(self, epochs: int, epoch_steps: int, val: Batch) -> int:
        """Epochs until the validation loss has not got better in `patience` epochs."""
        rule = self.trial.train.early_stop
        batches = self._batches()
        best, waited = math.inf, 0
        for epoch in range(1, epochs + 1):
            for _ in range(epoch_steps):
                self.step(next(batches))
            loss = self.evaluate(*val)
            waited = 0 if loss < best - rule["min_delta"] else waited + 1
            best = min(best, loss) if waited == 0 else best
            if waited == rule["patience"]:
                return epoch
        return epochs

    def evaluate(self, x: Tensor, y: Tensor) -> float:
        self.model.eval()
        with torch.no_grad():
            loss = float(self._fit((x.to(self.dtype), y.to(self.dtype) if y.is_floating_point() else y)))
        self.model.train()
        return loss

    def step(self, batch: Batch) -> Step:
        torch.manual_seed(1_000_003 * self.trial.seed + len(self.run.steps) + 1)  # what the model draws
        self.optimizer.zero_grad()
        for group in self.optimizer.param_groups if self.rates else ():
            group["lr"] = self.trial.optimizer["lr"] * self._rate()
        scope = self.trial.clip.as_dict().get("scope", "batch")
        if scope != "batch":
            self.run.steps.append(self._by_parts(batch, scope))
            return self.run.steps[-1]
        loss = self._loss(batch)
        loss.backward()
        self.idle = [] if self.noise else [p for p in self.model.parameters() if p.grad is None]
        for parameter in self.model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.noise:
            for parameter, added in zip(self.model.parameters(), next(self.noise), strict=True):
                parameter.grad += added.view_as(parameter)
        step = self._rule_and_step(float(loss.detach()))
        self.run.steps.append(step)
        return step

    def _descend(self) -> None:
        """The optimizer's step; what the loss did not reach has no gradient there."""
        zeros = [parameter.grad for parameter in self.idle]
        for parameter in self.idle:
            parameter.grad = None
        self.optimizer.step()
        for parameter, zero in zip(self.idle, zeros, strict=True):
            parameter.grad = zero

    def _rate(self) -> float:
        """The learning rate's factor at this step."""
        return self.rates[len(self.run.steps)] if self.rates else 1.0

    def _rule_and_step(self, loss: float) -> Step:
        """The rule, before or after the optimizer's step."""
        parameters = list(self.model.parameters())
        before = [p.grad.clone() for p in parameters]
        old = [p.detach().clone() for p in parameters]
        if self.trial.clip.name in _ON_WEIGHTS:
            self._descend()
            changed = _change_weights(self.trial, self.model, old, len(self.run.steps), self._rate())
            step = _measured(loss, before, before, changed > 0, changed)
            return replace(step, cosine=1.0)
        options = self.trial.clip.as_dict()
        if options.get("after") == "momentum" and options.get("threshold", 0.0) is not None:
            self._descend()
            return self._on_update(loss, before, old)
        kept, fired, scaled = clip(self.trial, self.model, self.memory, len(self.run.steps), self._rate())
        if kept:
            self._descend()
        after = [p.grad if kept else torch.zeros_like(p) for p in parameters]
        return _measured(loss, before, after, fired, scaled)

    def _by_parts(self, batch: Batch, scope: Any) -> Step:
        """Gradient and rule of each part of the batch, with the model as it is, then their average."""
        x, y = batch
        count = self._batch_size() if scope == "sample" else scope["n"]
        divisor = count if scope == "sample" else len(x)
        parameters = list(self.model.parameters())
        raw, clipped = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
        loss, fired, fractions, kept_any = 0.0, False, [], False
        for number, rows in enumerate(np.array_split(np.arange(len(x)), count)):
            if len(rows) == 0:
                continue
            self.optimizer.zero_grad()
            of_part = self._loss((x[rows], y[rows]))
            of_part.backward()
            before = [p.grad.clone() for p in parameters]
            memory = self.memory.setdefault(number, {})
            kept, acted, scaled = clip(self.trial, self.model, memory, len(self.run.steps), self._rate())
            for total, g in zip(raw, before, strict=True):
                total.add_(g * len(rows) / divisor)
            for total, p in zip(clipped, parameters, strict=True):
                if kept:
                    total.add_(p.grad * len(rows) / divisor)
            changed = [int((p.grad != g).sum()) for p, g in zip(parameters, before, strict=True)]
            fractions.append((sum(changed) if scaled is None else scaled) / _elements(parameters))
            loss += float(of_part.detach()) * len(rows) / len(x)
            fired, kept_any = fired or acted, kept_any or kept
        for p, total in zip(parameters, self._with_noise(clipped, divisor), strict=True):
            p.grad = total
        if kept_any:
            self.optimizer.step()
        step = _measured(loss, raw, [p.grad for p in parameters], fired, 0)
        return replace(step, fraction=float(np.mean(fractions)))

    def _with_noise(self, grads: list[Tensor], divisor: int) -> list[Tensor]:
        options = self.trial.clip.as_dict()
        if not options.get("noise") or options["threshold"] is None:
            return grads
        threshold = _moved(self.trial, options["threshold"], options, len(self.run.steps), self._rate())
        if options.get("groups"):  # Opacus' DPPerLayerOptimizer: the norm of the layers' bounds
            limits = in_groups(dict(self.model.named_parameters()), self.model, options["groups"])
            threshold = math.hypot(*(threshold * c for _, c in limits))
        deviation = options["noise"] * threshold / divisor
        return [g + deviation * torch.randn(g.shape, generator=self.private, dtype=self.dtype) for g in grads]

    def _on_update(self, loss: float, before: list[Tensor], old: list[Tensor]) -> Step:
        """The optimizer's update in the place of the gradient."""
        lr = self.optimizer.param_groups[0]["lr"]
        parameters = list(self.model.parameters())
        updates = [(was - p.detach()) / lr for p, was in zip(parameters, old, strict=True)]
        with torch.no_grad():
            for p, update, was in zip(parameters, updates, old, strict=True):
                p.grad = update.clone()
                p.copy_(was)
            _, fired, scaled = clip(self.trial, self.model, self.memory, len(self.run.steps), self._rate())
            for p in parameters:
                p.sub_(lr * p.grad)
        step = _measured(loss, updates, [p.grad for p in parameters], fired, scaled)
        return replace(step, pre=_total(before), maximum=max(float(g.abs().max()) for g in before))

    def _loss(self, batch: Batch) -> Tensor:
        train = self.trial.train
        loss = self._fit(batch)
        if train.l1 or train.l2:
            weights = torch.cat([parameter.flatten() for parameter in self.model.parameters()])
            loss = loss + train.l1 * weights.abs().sum() + train.l2 * (weights**2).sum()
        return loss

    def _fit(self, batch: Batch) -> Tensor:
        train = self.trial.train
        if train.loss.name == "output":
            return self.model(*([batch[0]] if self.data else [])).reshape(())
        loss = registry.find("loss", train.loss.name, train.loss.folder).function
        return loss(self.model(batch[0]), batch[1], **train.loss.as_dict())

    def _stream(self):
        train, data = self.trial.train, self.trial.data
        plugin = registry.find("data", data.name, data.folder)
        options = {name: value for name, value in data.as_dict().items() if not name.startswith("split.")}
        if "batch_size" in plugin.given:
            options["batch_size"] = train.batch_size
        generator = torch.Generator().manual_seed(self.trial.seed)
        while True:
            x, y = (torch.as_tensor(values) for values in plugin.function(generator=generator, **options))
            yield tuple(t.to(self.dtype) if t.is_floating_point() else t.long() for t in (x, y))

    def _batch_size(self) -> int:
        return self.trial.train.batch_size or len(self.data[0])

    def _batches(self):
        if self.streams:
            yield from self._stream()
        if self.data is None:
            while True:
                yield (torch.zeros(1), torch.zeros(1))
        x, y = self.data
        train = self.trial.train
        generator = torch.Generator().manual_seed(self.trial.seed)
        size = train.batch_size or len(x)
        while True:
            if train.batch_size is None:
                yield x, y
                continue
            order = torch.randperm(len(x), generator=generator)
            for start in range(0, len(x), size):
                chosen = order[start : start + size]
                if len(chosen) == size or not train.drop_last:
                    yield x[chosen], y[chosen]


def initial_model(trial: Trial, dataset: Dataset | None) -> nn.Module:
    plugin = registry.find("model", trial.model.name, trial.model.folder)
    given = {name: getattr(dataset, name) for name in plugin.given} if dataset else {}
    torch.manual_seed(trial.seed)
    return plugin.function(**given, **trial.model.as_dict())


def noise(trial: Trial, model: nn.Module) -> Iterator[tuple[Tensor, ...]]:
    """What is added to each parameter's gradient, step by step."""
    law = registry.find("noise", trial.train.noise.name, trial.train.noise.folder).function
    generator = torch.Generator().manual_seed(2**32 - 1 - trial.seed)
    sizes = [parameter.numel() for parameter in model.parameters()]
    while True:
        block = law(size=(max(1, 65536 // sum(sizes)), sum(sizes)), generator=generator, **trial.train.noise.as_dict())
        for step in block:
            yield torch.split(step, sizes)


def rates(train: Training) -> list[float]:
    """What torch's own schedulers make of a learning rate of 1, step by step."""
    if train.schedule is None:
        return []
    options = train.schedule.as_dict()
    warmup = options.pop("warmup")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = SCHEDULERS[train.schedule.name](optimizer, train.steps - warmup, **options)
    found = [(step + 1) / (warmup + 1) for step in range(warmup)]
    while len(found) < train.steps:
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


SCHEDULERS = {
    "constant": lambda optimizer, steps: ConstantLR(optimizer, factor=1.0),
    "linear": lambda optimizer, steps, final: LinearLR(optimizer, 1.0, final, total_iters=steps),
    "cosine": lambda optimizer, steps, final: CosineAnnealingLR(optimizer, steps, eta_min=final),
    "step": lambda optimizer, steps, every, gamma: StepLR(optimizer, every, gamma),
    "exponential": lambda optimizer, steps, final: ExponentialLR(optimizer, final ** (1 / steps)),
    "power": lambda optimizer, steps, exponent, scale: LambdaLR(optimizer, lambda t: (scale / (scale + t)) ** exponent),
}


def clip(trial: Trial, model: nn.Module, memory: Memory, step: int, rate: float) -> Clipped:
    """Clip the gradients in place: is the step kept, did the rule fire, and the elements of places that it scaled
    (None for rules that change elements one by one)."""
    options = trial.clip.as_dict()
    threshold = options.pop("threshold", math.inf)
    excluded = options.pop("exclude", ())
    for common in ("after", "scope", "noise", "delta", "error_if_nonfinite"):
        options.pop(common, None)
    name = trial.clip.name
    threshold = _moved(trial, threshold, options, step, rate)
    if threshold == "warm":
        return True, False, 0
    if name == "none" or threshold is None:
        return True, False, 0
    groups = options.pop("groups", ())
    named = {key: p for key, p in model.named_parameters() if not any(key.startswith(f"{e}.") for e in excluded)}
    if not groups:
        return _clip(name, list(named.values()), threshold, memory, options)
    warm = step < trial.clip.as_dict().get("warmup", 0) and name not in WARM_THEMSELVES
    done = [
        _clip(name, group, threshold if warm else threshold * c, memory.setdefault(number, {}), options)
        for number, (group, c) in enumerate(in_groups(named, model, groups))
    ]
    scaled = None if done[0][2] is None else sum(each[2] for each in done)
    return all(each[0] for each in done), any(each[1] for each in done), scaled


def in_groups(named: dict[str, nn.Parameter], model: nn.Module, groups: Any) -> list[tuple[list[nn.Parameter], float]]:
    """The parameters of each group and its threshold: a number for each parameter, or the first pattern that matches."""
    if isinstance(groups[0], float):
        every = zip(dict(model.named_parameters()), groups, strict=True)
        return [([named[name]], c) for name, c in every if name in named]
    found: dict[int, list[nn.Parameter]] = {}
    for name, parameter in named.items():
        for number, group in enumerate(groups):
            if any(fnmatchcase(name, p) or name.startswith(f"{p}.") for p in group["match"]):
                found.setdefault(number, []).append(parameter)
                break
    return [(found[n], group["threshold"]) for n, group in enumerate(groups) if n in found and group["threshold"]]


def _clip(name: str, chosen: list[nn.Parameter], c: float, memory: Memory, options: dict[str, Any]) -> Clipped:
    if name in _REMEMBERING:
        return _REMEMBERING[name](chosen, c, memory, **options)
    return _CLIPS[name](chosen, c, **options)


def _moved(trial: Trial, threshold: float, options: dict[str, Any], step: int, rate: float) -> Any:
    """The threshold of a step, from 0; `rate` is the learning rate's factor there. "warm": nothing is clipped."""
    warmup = 0 if trial.clip.name in WARM_THEMSELVES else options.pop("warmup", 0)
    schedule = options.pop("schedule", None)
    if threshold is None:
        return None
    if step < warmup:
        return {"autoclip": 100.0}.get(trial.clip.name, "warm" if trial.clip.name in ALWAYS_ACT else math.inf)
    if schedule is None:
        return threshold
    if schedule.name == "follow_lr":
        return threshold * rate
    if schedule.name == "against_lr":
        return threshold / rate
    return threshold * (1 + (schedule["final"] - 1) * step / trial.train.steps)  # linear


WARM_THEMSELVES = ("zclip", "adagc", "mean_plus_k_std", "skip_sigma")
ALWAYS_ACT = ("normalize", "soft_norm", "tanh", "sign_step")


def _norm(chosen: list[nn.Parameter], c: float, per: str, p: float) -> Clipped:
    scaled = 0
    for place in _places(chosen, per):
        if float(clip_grad_norm_(place, c, norm_type=p)) > c:
            scaled += _elements(place)
    return True, scaled > 0, scaled


def _agc(chosen: list[nn.Parameter], c: float, per: str, eps: float, p: float = 2.0) -> Clipped:
    scaled = 0
    for place in _places(chosen, per):
        gradient = float(torch.cat([stand_in.grad.flatten() for stand_in in place]).norm(p))
        limit = c * max(float(torch.cat([stand_in.data.flatten() for stand_in in place]).norm(p)), eps)
        if gradient > limit:
            scaled += _elements(place)
            for stand_in in place:
                stand_in.grad.mul_(limit / max(gradient, 1e-6))
    return True, scaled > 0, scaled


def _normalize(chosen: list[nn.Parameter], c: float, per: str) -> Clipped:
    for place in _places(chosen, per):
        norm = _total([stand_in.grad for stand_in in place])
        for stand_in in place:
            stand_in.grad.mul_(c / (norm + 1e-6))
    return True, True, _elements(chosen)


def _rms(chosen: list[nn.Parameter], c: float, per: str) -> Clipped:
    scaled = 0
    for place in _places(chosen, per):
        size = _elements(place)
        excess = float(torch.cat([stand_in.grad.flatten() for stand_in in place]).square().mean().sqrt()) / c
        scaled += size if excess > 1 else 0
        for stand_in in place:
            stand_in.grad.div_(max(1.0, excess))
    return True, scaled > 0, scaled


def _soft_norm(chosen: list[nn.Parameter], c: float, per: str) -> Clipped:
    for place in _places(chosen, per):
        norm = _total([stand_in.grad for stand_in in place])
        for stand_in in place:
            stand_in.grad.mul_(c / (c + norm))
    return True, True, _elements(chosen)


def _value(chosen: list[nn.Parameter], c: float, lower: float | None = None, upper: float | None = None) -> Clipped:
    before = [p.grad.clone() for p in chosen]
    if lower is None and upper is None:
        clip_grad_value_(chosen, c)
    for p in chosen:
        p.grad.clamp_(-c if lower is None else lower, c if upper is None else upper)
    fired = any(not torch.equal(p.grad, old) for p, old in zip(chosen, before, strict=True))
    return True, fired, None


def _centralize(chosen: list[nn.Parameter], _: float) -> Clipped:
    for p in chosen:
        if p.ndim > 1:
            p.grad.sub_(p.grad.mean(dim=tuple(range(1, p.ndim)), keepdim=True))
    return True, True, None


def _skip_nonfinite(chosen: list[nn.Parameter], _: float) -> Clipped:
    keep = all(bool(p.grad.isfinite().all()) for p in chosen)
    return keep, not keep, 0 if keep else _elements(chosen)


def _elementwise(change: Callable[[Tensor, float, float], Tensor]) -> Callable[..., Clipped]:
    def rule(chosen: list[nn.Parameter], c: float) -> Clipped:
        largest = max(float(p.grad.abs().max()) for p in chosen)
        fired = False
        for p in chosen:
            new = change(p.grad, c, largest)
            fired |= bool((new != p.grad).any())
            p.grad.copy_(new)
        return True, fired, None

    return rule


def _skip(chosen: list[nn.Parameter], c: float) -> Clipped:
    keep = _total([p.grad for p in chosen]) <= c
    return keep, not keep, 0 if keep else _elements(chosen)


def _drop(chosen: list[nn.Parameter], c: float) -> Clipped:
    keep, fired, _ = _skip(chosen, c)
    for p in chosen:
        if not keep:
            p.grad.zero_()
    return True, fired, None


_CLIPS: dict[str, Callable[..., Clipped]] = {
    "norm": _norm,
    "tensor_norm": _norm,
    "agc": _agc,
    "normalize": _normalize,
    "value": _value,
    "zero": _elementwise(lambda g, c, _: torch.where(g.abs() > c, torch.zeros_like(g), g)),
    "one_sided": _elementwise(lambda g, c, _: g.clamp(max=c)),
    "sign_step": _elementwise(lambda g, c, _: torch.where(g.abs() > c, c * g.sign(), torch.zeros_like(g))),
    "relative": _elementwise(lambda g, c, largest: g.clamp(-c * largest, c * largest)),
    "rms": _rms,
    "soft_norm": _soft_norm,
    "tanh": _elementwise(lambda g, c, _: c * torch.tanh(g / c)),
    "sign": _elementwise(lambda g, c, _: torch.sign(g)),
    "centralize": _centralize,
    "skip_nonfinite": _skip_nonfinite,
    "skip": _skip,
    "drop": _drop,
}


def _following(limit: Callable[..., float]) -> Callable[..., Clipped]:
    """A rule that scales each place to a limit, which follows what it remembers of the place."""

    def rule(chosen: list[nn.Parameter], c: float, memory: Memory, per: str, **options: Any) -> Clipped:
        scaled, whole = 0, _total([p.grad for p in chosen])
        for index, place in enumerate(_places(chosen, per)):
            norm = _total([stand_in.grad for stand_in in place])
            if norm == 0:  # says nothing, and is not remembered
                continue
            most = limit(memory.setdefault(index, {}), norm, c, whole=whole, **options)
            if norm > most:
                scaled += _elements(place)
                for stand_in in place:
                    stand_in.grad.mul_(most / norm)
        return True, scaled > 0, scaled

    return rule


def _autoclip(past: Memory, norm: float, c: float, window: int, **_: Any) -> float:
    norms = past.setdefault("norms", [])
    norms.append(norm)
    return float(np.percentile(norms[-window:], min(c, 100.0)))


def _zclip(past: Memory, norm: float, c: float, alpha: float, warmup: int, max_norm: float, **_: Any) -> float:
    norms = past.setdefault("norms", [])
    limit = math.inf
    if len(norms) >= warmup:
        deviation = max(math.sqrt(past["variance"]), 1e-3 * past["mean"])
        z = (norm - past["mean"]) / (deviation + 1e-6)
        limit = past["mean"] + c * c * deviation / z if z > c else math.inf
    limit = min(limit, max_norm)
    norms.append(min(norm, limit))
    if len(norms) <= warmup:
        past.update(mean=np.mean(norms), variance=np.var(norms))
    else:
        past["mean"] = alpha * past["mean"] + (1 - alpha) * norms[-1]
        past["variance"] = alpha * past["variance"] + (1 - alpha) * (norms[-1] - past["mean"]) ** 2
    return limit


def _adagc(past: Memory, norm: float, c: float, whole: float, beta: float, warmup: int, max_norm: float) -> float:
    past["steps"] = past.get("steps", 0) + 1
    if past["steps"] <= warmup:
        limit = norm * max_norm / whole if whole > max_norm else math.inf
        past["gamma"] = min(past.get("gamma", math.inf), norm, limit)
        return limit
    limit = c * past["gamma"]
    past["gamma"] = beta * past["gamma"] + (1 - beta) * min(norm, limit)
    return limit


def _norm_growth(past: Memory, norm: float, c: float, **_: Any) -> float:
    limit = c * (past.get("last", math.inf) + 1e-8)
    past["last"] = min(norm, limit)
    return limit


def _usual(past: Memory, norm: float, c: float, window: int, warmup: int, **_: Any) -> float:
    norms = past.setdefault("norms", [])[-window:]
    past["norms"].append(norm)
    return float(np.mean(norms) + c * max(np.std(norms), 1e-6)) if len(past["norms"]) > warmup else math.inf


def _ema_norm(past: Memory, norm: float, c: float, beta: float, **_: Any) -> float:
    limit = c * past.get("mean", math.inf)
    past["mean"] = beta * past.get("mean", norm) + (1 - beta) * min(norm, limit)
    return limit


def _skip_sigma(chosen: list[nn.Parameter], c: float, memory: Memory, patience: int, **options: Any) -> Clipped:
    norm = _total([p.grad for p in chosen])
    keep = norm <= _usual(memory, norm, c, **options) or memory.get("refused", 0) >= patience
    memory["refused"] = 0 if keep else memory.get("refused", 0) + 1
    return keep, not keep, 0 if keep else _elements(chosen)


_REMEMBERING: dict[str, Callable[..., Clipped]] = {
    "autoclip": _following(_autoclip),
    "zclip": _following(_zclip),
    "adagc": _following(_adagc),
    "norm_growth": _following(_norm_growth),
    "mean_plus_k_std": _following(_usual),
    "ema_norm": _following(_ema_norm),
    "skip_sigma": _skip_sigma,
}


def _change_weights(trial: Trial, model: nn.Module, old: list[Tensor], step: int, rate: float) -> int:
    """The weights after the step as a rule on them has them: how many elements it changed."""
    options = trial.clip.as_dict()
    threshold, excluded = options.pop("threshold"), options.pop("exclude", ())
    threshold = _moved(trial, threshold, options, step, rate)
    changed = 0
    named = {name: p for name, p in model.named_parameters() if not any(name.startswith(f"{e}.") for e in excluded)}
    groups = options.pop("groups", ())
    limits = [([p], 1.0) for p in named.values()] if not groups else in_groups(named, model, groups)
    limit_of = {id(p): factor for group, factor in limits for p in group}
    with torch.no_grad():
        for p, was in zip(model.parameters(), old, strict=True):
            if threshold is not None and id(p) in limit_of:
                changed += _ON_WEIGHTS[trial.clip.name](p, was, threshold * limit_of[id(p)], **options)
    return changed


def _weight_clamp(p: nn.Parameter, _: Tensor, c: float) -> int:
    changed = int((p.abs() > c).sum())
    p.clamp_(-c, c)
    return changed


def _max_norm(p: nn.Parameter, _: Tensor, c: float, per: str, eps: float) -> int:
    changed = 0
    for row in [p] if p.ndim < 2 or per == "tensor" else list(p.transpose(0, 1) if per == "column" else p):
        norm = float(row.norm())
        row.mul_(min(1.0, c / (norm + eps)))
        changed += row.numel() if norm > c else 0
    return changed


def _halve(p: nn.Parameter, was: Tensor, c: float) -> int:
    large = p.grad.abs() > c
    new = torch.where(large, -was / 2, p)
    changed = int((new != p).sum())
    p.copy_(new)
    return changed


_ON_WEIGHTS: dict[str, Callable[..., int]] = {"weight_clamp": _weight_clamp, "max_norm": _max_norm, "halve": _halve}


def _places(chosen: list[nn.Parameter], per: str) -> list[list[nn.Parameter]]:
    """Groups of parameters, or of their rows as views that write through."""
    if per == "model":
        return [chosen]
    if per == "tensor":
        return [[p] for p in chosen]
    if per == "column":
        matrices = [_transposed(p) if p.ndim > 1 else p for p in chosen]
        return [[row] for p in matrices for row in ([p] if p.ndim < 2 else [_row(p, n) for n in range(len(p))])]
    return [[row] for p in chosen for row in ([p] if p.ndim < 2 else [_row(p, index) for index in range(len(p))])]


def _transposed(parameter: nn.Parameter) -> nn.Parameter:
    stand_in = nn.Parameter(parameter.data.transpose(0, 1))
    stand_in.grad = parameter.grad.transpose(0, 1)
    return stand_in


def _row(parameter: nn.Parameter, index: int) -> nn.Parameter:
    stand_in = nn.Parameter(parameter.data[index])
    stand_in.grad = parameter.grad[index]
    return stand_in


def _elements(place: list[nn.Parameter]) -> int:
    return sum(p.numel() for p in place)


def _total(tensors: list[Tensor]) -> float:
    return float(torch.stack([tensor.norm() for tensor in tensors]).norm())


def _measured(loss: float, before: list[Tensor], after: list[Tensor], fired: bool, scaled: int | None) -> Step:
    pre, post = _total(before), _total(after)
    changed = sum(int((a != b).sum()) for a, b in zip(after, before, strict=True)) if scaled is None else scaled
    dot = sum(float((a * b).sum()) for a, b in zip(after, before, strict=True))
    cosine = dot / (pre * post) if pre * post > 0 else float(pre == 0)
    elements = sum(tensor.numel() for tensor in before)
    maximum = max(float(tensor.abs().max()) for tensor in before)
    return Step(loss, pre, post, maximum, fired, changed / elements, cosine)


def _tensors(dataset: Dataset | None, dtype: torch.dtype) -> Batch | None:
    if dataset is None:
        return None
    x, y = (torch.as_tensor(array) for array in dataset.train)
    return tuple(t.to(dtype) if t.is_floating_point() else t for t in (x, y))


def diverges(step: Step) -> bool:
    return not (math.isfinite(step.loss) and math.isfinite(step.pre))
