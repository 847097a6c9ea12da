"""Rules applied to runs of lanes: the engine gives a rule its statistics, carries it out and records what it did."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from clipbench import registry
from clipbench.engine.blocks import Blocks
from clipbench.engine.telemetry import COSINE, FIRED, FRACTION, MAX, POST, PRE, Telemetry
from clipbench.trial import Component, Trial

Places = list[tuple[str, int, int]]  # a tensor, and its columns among the places
Identity = tuple[str, str, tuple[Any, ...]]

# Options of an arm that are the engine's business; all others are the rule's own.
COMMON = ("per", "exclude", "threshold")
OFF: Identity = ("none", "off", ())
# Lanes in this order: rules that give one coefficient a lane stand together.
ORDER = ("off", "model", "tensor", "unit", "element", "step")


def identity(clip: Component) -> Identity:
    """What lanes must share to be clipped together: everything but the threshold."""
    options = clip.as_dict()
    plugin = registry.find("strategy", clip.name, clip.folder)
    if clip.name == "none" or ("threshold" in plugin.options and options.get("threshold") is None):
        return OFF
    return clip.name, str(options.get("per") or plugin.facts["per"]), clip.without("threshold").options


def sort_key(trial: Trial) -> tuple[int, str, float]:
    rule = identity(trial.clip)
    return ORDER.index(rule[1]), repr(rule), trial.threshold or 0.0


def excluded(name: str, patterns: Sequence[str]) -> bool:
    """`head` names the module's parameters, `*.bias` any that match."""
    return any(fnmatchcase(name, pattern) or name.startswith(f"{pattern}.") for pattern in patterns)


class Clipping:
    """All the rules of a chunk. Calling it changes the gradients in place and fills a step's rows."""

    def __init__(self, trials: Sequence[Trial], params: Blocks, grads: Blocks, telemetry: Telemetry) -> None:
        self.runs: list[Run] = []
        self.refuses = [False] * len(trials)
        first = 0
        for rule, group in itertools.groupby(trials, lambda trial: identity(trial.clip)):
            arms = [trial.clip for trial in group]
            lanes = slice(first, first + len(arms))
            first += len(arms)
            if rule != OFF:
                run = _RUNS[rule[1]](arms, lanes, rule[1], params, grads, telemetry)
                self.runs.append(run)
                self.refuses[lanes] = [run.plugin.facts.get("refuses", False)] * len(arms)

    def __call__(self, rows: Tensor) -> None:
        for run in self.runs:
            run(rows)

    def timed(self, rows: Tensor) -> None:
        """The same, adding up what each rule costs."""
        for run in self.runs:
            start = perf_counter()
            run(rows)
            run.seconds += perf_counter() - start
            run.timings += 1

    def step_seconds(self, lane: int) -> float:
        """What the lane's own rule costs it per step."""
        for run in self.runs:
            if run.lanes.start <= lane < run.lanes.stop and run.timings:
                return run.seconds / run.timings / run.count
        return 0.0


class Run:
    """Consecutive lanes with the same rule; only their thresholds differ."""

    def __init__(
        self, arms: Sequence[Component], lanes: slice, per: str, params: Blocks, grads: Blocks, telemetry: Telemetry
    ) -> None:
        options = arms[0].as_dict()
        self.plugin = registry.find("strategy", arms[0].name, arms[0].folder)
        self.per = per
        self.lanes = lanes
        self.count = len(arms)
        self.seconds = 0.0
        self.timings = 0
        self.p = float(options.get("p", 2.0))  # type: ignore[arg-type]
        patterns = options.get("exclude") or ()
        self.names = [name for name in grads if not excluded(name, patterns)]  # type: ignore[arg-type]
        self.indices = [list(grads).index(name) for name in self.names]
        self.share = sum(grads.sizes[name] for name in self.names) / grads.size
        self.whole = len(self.names) == len(grads)
        self.elements = grads.size
        self.telemetry = telemetry
        self.grads = {name: grads[name][lanes] for name in self.names}
        self.weights = {name: params[name][lanes] for name in self.names}
        self._rule = self._with_options(arms, grads.storage)

    def __call__(self, rows: Tensor) -> None:
        raise NotImplementedError

    def _with_options(self, arms: Sequence[Component], like: Tensor) -> Callable[..., Any]:
        options = {name: value for name, value in arms[0].options if name not in COMMON}
        if "threshold" in self.plugin.options:
            limits = [float(arm["threshold"]) for arm in arms]  # type: ignore[arg-type]
            options["threshold"] = like.new_tensor(limits).unsqueeze(1)  # type: ignore[assignment]
        function, given = self.plugin.function, self.plugin.given
        return lambda **statistics: function(**{k: v for k, v in statistics.items() if k in given}, **options)

    def _norms(self, p: float) -> Tensor:
        """The p-norm of each included tensor: [lanes, tensors]."""
        if p == 2 or math.isinf(p):
            known = self.telemetry.norms if p == 2 else self.telemetry.maxima
            # Contiguous, so that sums over places add in the same order however many lanes there are.
            return known[self.indices, self.lanes].T.contiguous()
        flat = [torch.linalg.vector_norm(gradient.view(self.count, -1), p, dim=1) for gradient in self.grads.values()]
        return torch.stack(flat, dim=1)

    def _model_norm(self, rows: Tensor, p: float) -> Tensor:
        """The p-norm over all included tensors: [lanes, 1]."""
        if p == 2 and self.whole:
            return rows[PRE, self.lanes].unsqueeze(1)
        return torch.linalg.vector_norm(self._norms(p), p, dim=1, keepdim=True)

    def _model_maximum(self, rows: Tensor) -> Tensor:
        if self.whole:
            return rows[MAX, self.lanes].unsqueeze(1)
        return self.telemetry.maxima[self.indices, self.lanes].amax(0).unsqueeze(1)

    def _left_alone(self) -> Tensor:
        """Squared norm of the excluded tensors, which stay as they are: [lanes]."""
        others = [i for i in range(len(self.telemetry.norms)) if i not in self.indices]
        return self.telemetry.norms[others, self.lanes].square().sum(0)


class ScalingRun(Run):
    """Rules that return a coefficient for each place."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.places, self.sizes = self._layout()

    def __call__(self, rows: Tensor) -> None:
        n = self._at_places(self.grads, rows, self.p)
        statistics = {"n": n, "model_n": self._model_norm(rows, self.p), "model_m": self._model_maximum(rows)}
        if "w" in self.plugin.given:
            statistics["w"] = self._at_places(self.weights, None, self.p)
        if "m" in self.plugin.given:
            statistics["m"] = self._at_places(self.grads, None, math.inf)
        coefficient, fired = self._rule(**statistics)
        self._record(rows, n if self.p == 2 else self._at_places(self.grads, rows, 2.0), coefficient, fired)
        for name, start, stop in self.places:
            gradient = self.grads[name].view(self.count, stop - start, -1)
            gradient.mul_(coefficient[:, start:stop].unsqueeze(-1))

    def _record(self, rows: Tensor, n: Tensor, coefficient: Tensor, fired: Tensor) -> None:
        before = rows[PRE, self.lanes]
        scaled = coefficient * n
        if self.per == "model" and self.whole:
            after, kept = scaled.squeeze(1), coefficient.squeeze(1)
            cosine = torch.where((kept > 0) | (before == 0), 1.0, 0.0)
        else:
            rest = self._left_alone()
            after = (scaled.square().sum(1) + rest).sqrt()
            cosine = _cosine((scaled * n).sum(1) + rest, before, after)
        rows[POST, self.lanes] = after
        rows[COSINE, self.lanes] = cosine
        rows[FIRED, self.lanes] = fired.any(1).to(rows.dtype)
        rows[FRACTION, self.lanes] = (fired * self.sizes).sum(1) / self.elements

    def _layout(self) -> tuple[Places, Tensor]:
        """Where each tensor's places are, and how many elements each place has."""
        like = next(iter(self.grads.values()))
        if self.per == "model":
            total = sum(gradient[0].numel() for gradient in self.grads.values())
            return [(name, 0, 1) for name in self.grads], like.new_tensor([total])
        places, sizes, start = [], [], 0
        for name, gradient in self.grads.items():
            units = gradient.shape[1] if self.per == "unit" and gradient.ndim > 2 else 1
            places.append((name, start, start + units))
            sizes += [gradient[0].numel() // units] * units
            start += units
        return places, like.new_tensor(sizes)

    def _at_places(self, tensors: dict[str, Tensor], rows: Tensor | None, p: float) -> Tensor:
        """Norms at the rule's own places: [lanes, places]."""
        if rows is not None and self.per == "model":
            return self._model_norm(rows, p)
        if rows is not None and self.per == "tensor":
            return self._norms(p)
        if self.per == "model":
            flat = [torch.linalg.vector_norm(tensor.view(self.count, -1), p, dim=1) for tensor in tensors.values()]
            return torch.linalg.vector_norm(torch.stack(flat, 1), p, dim=1, keepdim=True)
        norms = [
            torch.linalg.vector_norm(tensors[name].view(self.count, stop - start, -1), p, dim=2)
            for name, start, stop in self.places
        ]
        return torch.cat(norms, dim=1)


class ElementRun(Run):
    """Rules that return new elements."""

    def __call__(self, rows: Tensor) -> None:
        model_n, model_m = self._model_norm(rows, 2.0), self._model_maximum(rows)
        squares = self._left_alone()
        dots = squares.clone()
        changed = torch.zeros_like(squares)
        for gradient in self.grads.values():
            old = gradient.view(self.count, -1)
            new = self._rule(g=old, model_n=model_n, model_m=model_m)
            squares += torch.linalg.vector_norm(new, dim=1).square()
            dots += torch.linalg.vecdot(new, old)
            changed += (new != old).sum(1)
            old.copy_(new)
        after = squares.sqrt()
        rows[POST, self.lanes] = after
        rows[COSINE, self.lanes] = _cosine(dots, rows[PRE, self.lanes], after)
        rows[FIRED, self.lanes] = (changed > 0).to(rows.dtype)
        rows[FRACTION, self.lanes] = changed / self.elements


class StepRun(Run):
    """Rules that keep or refuse the whole step; the optimizer reads `keep`."""

    keep: Tensor

    def __call__(self, rows: Tensor) -> None:
        n = self._model_norm(rows, self.p)
        self.keep = self._rule(n=n, model_n=n, model_m=self._model_maximum(rows)).view(-1)
        refused = (~self.keep).to(rows.dtype)
        rows[POST, self.lanes] = torch.where(self.keep, rows[PRE, self.lanes], 0.0)
        rows[COSINE, self.lanes] = 1 - refused
        rows[FIRED, self.lanes] = refused
        rows[FRACTION, self.lanes] = refused


_RUNS: dict[str, type[Run]] = {
    "model": ScalingRun,
    "tensor": ScalingRun,
    "unit": ScalingRun,
    "element": ElementRun,
    "step": StepRun,
}


def _cosine(dot: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """1 where nothing was there to change, 0 where nothing is left."""
    product = before * after
    return torch.where(product > 0, dot / product, (before == 0).to(dot.dtype))
