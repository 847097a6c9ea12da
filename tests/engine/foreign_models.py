"""Models, losses, metrics, optimizers and data as people write them, for `test_foreign_models.py`.

Only the rule knows of clipbench. State in attributes, generators of all kinds, layers that are dropped, buffers, hooks,
parameters that are tied, frozen or filtered, and optimizers with their own ideas of a step.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import logging
import random
import threading
import weakref

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clipbench

FEATURES = 6


def table(examples: int = 100, seed: int = 0) -> tuple:
    """Four classes of real features."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((examples, FEATURES))
    return x, np.argmax(x[:, :4] + 0.5 * draw.standard_normal((examples, 4)), axis=1)


def series(examples: int = 100, length: int = 5, seed: int = 0) -> tuple:
    """Sequences of three features, and whether the first one rises."""
    x = np.random.default_rng(seed).standard_normal((examples, length, 3))
    return x, (x[:, -1, 0] > x[:, 0, 0]).astype(int)


def words(examples: int = 100, seed: int = 0) -> tuple:
    """Four words of twenty, and whether the first is one of the common ones."""
    x = np.random.default_rng(seed).integers(0, 20, (examples, 4))
    return x, (x[:, 0] < 10).astype(int)


class Mlp(nn.Module):
    def __init__(self, inputs: int, outputs: int, hidden: int = 8):
        super().__init__()
        self.body = nn.Linear(inputs, hidden)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x)))


# State in Python attributes


class KlWarmup(nn.Module):
    """A variational autoencoder that returns its loss; the weight of the divergence rises with the steps."""

    def __init__(self, inputs: int, latent: int = 2, warmup: int = 40):
        super().__init__()
        self.encoder = nn.Linear(inputs, 2 * latent)
        self.decoder = nn.Linear(latent, inputs)
        self.warmup = warmup
        self.t = 0

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(-1).mean()
        beta = min(1.0, self.t / self.warmup)
        if self.training:
            self.t += 1
        return F.mse_loss(self.decoder(mean), x) + beta * divergence


class CountsEverything(Mlp):
    """Its temperature falls with every call, whether it is trained or evaluated."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.schedule = Temperature()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.schedule.next()


@dataclasses.dataclass
class Temperature:
    value: float = 2.0

    def next(self) -> float:
        self.value = max(0.5, 0.97 * self.value)
        return self.value


class CarriedLstm(nn.Module):
    """The state of one batch is the initial state of the next one of the same size."""

    def __init__(self, inputs, outputs: int, hidden: int = 5):
        super().__init__()
        self.lstm = nn.LSTM(inputs[-1], hidden, batch_first=True)
        self.head = nn.Linear(hidden, outputs)
        self.state = None

    def forward(self, x: Tensor) -> Tensor:
        if self.state is not None and self.state[0].shape[1] != len(x):
            self.state = None
        output, (h, c) = self.lstm(x, self.state)
        self.state = (h.detach(), c.detach())
        return self.head(output[:, -1])


class CarriesItsGraph(CarriedLstm):
    """The same without `detach`, which no loop can train."""

    def forward(self, x: Tensor) -> Tensor:
        output, self.state = self.lstm(x, self.state)
        return self.head(output[:, -1])


class RunningScale(Mlp):
    """Scales its input by the largest of the last batches, which it remembers in a deque."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.past = collections.deque(maxlen=3)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.past.append(x.abs().max().detach())
        scale = torch.stack(list(self.past)).max() if self.past else 1.0
        return super().forward(x / scale)


class AlternatesHeads(Mlp):
    """One of two heads at a time, by an iterator."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.other = nn.Linear(8, outputs)
        self.turns = itertools.cycle([False, False, True])

    def forward(self, x: Tensor) -> Tensor:
        first = not self.training or next(self.turns)
        return (self.head if first else self.other)(torch.tanh(self.body(x)))


class KeepsActivations(Mlp):
    """Keeps what it computes for somebody who wants to plot it."""

    def forward(self, x: Tensor) -> Tensor:
        self.hidden = torch.tanh(self.body(x))
        return self.head(self.hidden)


class MeanTeacher(Mlp):
    """Its output is pulled towards that of an average of its weights, which are frozen parameters."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.teacher = Mlp(inputs, outputs).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                for name, mean in self.teacher.named_parameters():
                    mean.lerp_(self.get_parameter(name), 0.1)
        return super().forward(x) + 0.5 * self.teacher(x)


class BoundsItsWeights(Mlp):
    """The rows of its weights have at most the norm 1, which `forward` sees to."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.body.weight.copy_(torch.renorm(self.body.weight, 2, 0, 0.5))
        return super().forward(x)


COUNT = 0


class CountsInItsFile(Mlp):
    """A counter that all instances share, in the globals of the file."""

    def forward(self, x: Tensor) -> Tensor:
        global COUNT
        COUNT += 1
        return super().forward(x) / (1 + 0.1 * COUNT)


class CountsInItsClass(Mlp):
    """A counter that all instances share, in the class."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return super().forward(x) / (1 + 0.1 * self.calls)


class Unfreezes(Mlp):
    """Its body is frozen for the first 30 steps."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.body.requires_grad_(False)
        self.t = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.t += 1
            if self.t > 30:
                self.body.requires_grad_(True)
        return super().forward(x)


class ChangesItsInput(Mlp):
    """Works on its input in place, as if it were its own."""

    def forward(self, x: Tensor) -> Tensor:
        x[:, 0] = 0
        x *= 1.5
        return super().forward(x)


class ShowsItsWeights(Mlp):
    """An attribute that is a view of its weights."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.shown = self.body.weight.detach()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0 * self.shown.sum()


class ReplacesItsWeights(Mlp):
    """New parameters at every step, which no optimizer knows."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.body.weight = nn.Parameter(0.9 * self.body.weight.detach())
        return super().forward(x)


class TrainsAPartItself(Mlp):
    """A part that an optimizer of its own trains in `forward`."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.part = nn.Linear(inputs, inputs)
        self.optimizer = torch.optim.Adam(self.part.parameters(), lr=0.01)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.optimizer.zero_grad()
            (self.part(x) - x).square().mean().backward()
            self.optimizer.step()
        return super().forward(self.part(x).detach())


class Checkpointed(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.utils.checkpoint.checkpoint(lambda x: torch.tanh(self.body(x)), x, use_reentrant=False)
        return self.head(hidden)


class GradientPenalty(Mlp):
    """Its output contains the size of its own gradient."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(super().forward(x).sum(), x, create_graph=True)
        return super().forward(x) + 0.1 * slope.square().sum()


class Harmless(Mlp):
    """A lock, a logger, functions, its parent, and a weak reference: nothing that a call changes."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.lock, self.log = threading.Lock(), logging.getLogger("foreign")
        self.activation = functools.partial(F.leaky_relu, negative_slope=0.1)
        self.head.parent, self.me = [self], weakref.ref(self)

    def forward(self, x: Tensor) -> Tensor:
        self.log.debug("a batch of %d", len(x))
        with self.lock:
            return self.head(self.activation(self.body(x)))


# Random numbers


class Coin(Mlp):
    """Negates its input by a coin of the module `random`."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and random.random() < 0.5:
            x = -x
        return super().forward(x)


class NumpyNoise(Mlp):
    """Noise of numpy on its input."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x + torch.as_tensor(np.random.normal(0, 0.3, x.shape), dtype=x.dtype)
        return super().forward(x)


class OwnNumpyGenerator(Mlp):
    """Noise of a generator of its own."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.draw = np.random.default_rng(5)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x + torch.as_tensor(self.draw.normal(0, 0.3, x.shape), dtype=x.dtype)
        return super().forward(x)


class OwnTorchGenerator(Mlp):
    """A mask of a generator of its own."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.generator = torch.Generator().manual_seed(5)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x * (torch.rand(x.shape[1], generator=self.generator) < 0.8)
        return super().forward(x)


class LayerDrop(nn.Module):
    """Leaves out layers at random: these have no gradient at that step, so no optimizer moves them."""

    def __init__(self, inputs: int, outputs: int, layers: int = 3, drop: float = 0.5):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(inputs, inputs) for _ in range(layers))
        self.head = nn.Linear(inputs, outputs)
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not self.training or torch.rand(()).item() >= self.drop:
                x = x + torch.tanh(layer(x))
        return self.head(x)


class Dropout(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(torch.tanh(self.body(x)), 0.3, self.training))


class FixedFeatures(nn.Module):
    """Random features in a plain attribute, not a buffer; other ones for each seed."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.directions = torch.randn(inputs, 12)
        self.head = nn.Linear(12, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cos(x @ self.directions.to(x.dtype)))


class DrawsWeightsElsewhere(Mlp):
    """Initial weights of numpy and of `random`."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        with torch.no_grad():
            self.body.weight.copy_(torch.as_tensor(np.random.normal(0, 0.5, self.body.weight.shape)))
            self.head.bias.fill_(random.random())


class WithoutSeed(Mlp):
    """Initial weights that nobody can draw again."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        with torch.no_grad():
            self.body.weight.copy_(torch.as_tensor(np.random.default_rng().normal(0, 0.5, self.body.weight.shape)))


class WidthBySeed(Mlp):
    """Another number of units for each seed."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, hidden=random.randint(4, 100))


# Parameters


def compiled(inputs: int, outputs: int) -> nn.Module:
    """A part of it is compiled."""
    return nn.Sequential(torch.compile(Mlp(inputs, 8), backend="eager"), nn.Tanh(), nn.Linear(8, outputs))


class CompiledForward(Mlp):
    @torch.compile(backend="eager")
    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x)))


class Tied(nn.Module):
    """An autoencoder whose decoder is its encoder transposed, and a head with a matrix that occurs twice."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = nn.Linear(inputs, inputs, bias=False)
        self.second = nn.Linear(inputs, inputs)
        self.second.weight = self.first.weight
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.second(torch.tanh(self.first(x))))
        return self.head(h @ self.first.weight.T)


class Frozen(Mlp):
    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.body.requires_grad_(False)


class MaskedGradient(Mlp):
    """A hook keeps the first units as they are."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.body.weight.register_hook(lambda g: torch.cat([torch.zeros_like(g[:4]), g[4:]]))


class StoresByHook(Mlp):
    """A forward hook of a layer puts away what the layer returns, and it is used in the next call."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.seen = []
        self.body.register_forward_hook(lambda layer, given, output: self.seen.append(output.detach().mean()))

    def forward(self, x: Tensor) -> Tensor:
        last = self.seen[-1] if self.seen and self.training else 0.0
        return super().forward(x) + last


def normalized(inputs: int, outputs: int) -> nn.Module:
    """Weight normalization as it was before parametrizations, and spectral normalization, which has buffers."""
    return nn.Sequential(
        torch.nn.utils.weight_norm(nn.Linear(inputs, 8)),
        nn.Tanh(),
        torch.nn.utils.parametrizations.spectral_norm(nn.Linear(8, outputs)),
    )


def lazy(outputs: int) -> nn.Module:
    return nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.Linear(8, outputs))


def batch_norm(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, outputs))


class SparseBag(nn.Module):
    """The mean of embeddings with sparse gradients."""

    def __init__(self, outputs: int):
        super().__init__()
        self.embedding = nn.Embedding(20, 5, sparse=True)
        self.head = nn.Linear(5, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(x).mean(1))


class SparseByFunction(SparseBag):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.embedding(x, self.embedding.weight, sparse=True).mean(1))


@dataclasses.dataclass
class Output:
    logits: Tensor
    hidden: Tensor


class ReturnsAnObject(Mlp):
    def forward(self, x: Tensor) -> Output:
        hidden = torch.tanh(self.body(x))
        return Output(self.head(hidden), hidden)


class ReturnsAMapping(Mlp):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(x)}


class Gate(Mlp):
    """Reads a number of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.mean().item() > 0 else 0.5 * x)


# Losses and metrics


class Annealed:
    """A loss that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        return F.cross_entropy(output, target, label_smoothing=max(0.0, 0.5 - 0.01 * self.calls))


annealed = Annealed()


def mixed(output: Tensor, target: Tensor) -> Tensor:
    """Mixes two losses by a random share."""
    share = np.random.beta(0.5, 0.5)
    return share * F.cross_entropy(output, target) + (1 - share) * F.cross_entropy(output.flip(0), target.flip(0))


def weighted_by_place(output: Tensor, target: Tensor) -> Tensor:
    """Has a weight for each example of a batch of 16."""
    weights = torch.linspace(0.5, 1.5, 16, dtype=output.dtype)
    return (weights[: len(output)] * F.cross_entropy(output, target, reduction="none")).mean()


def only_of_small_parts(output: Tensor, target: Tensor) -> Tensor:
    assert len(output) <= 16, "a part of at most 16 examples"
    return (output.argmax(-1) == target).to(output.dtype).mean()


# Optimizers


def filtered(params, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in params if p.requires_grad], lr=lr, momentum=0.9)


def grouped(params, lr: float = 0.05) -> torch.optim.Optimizer:
    """Matrices decay, vectors do not."""
    trained = [p for p in params if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr)


def by_name(named, lr: float = 0.05) -> torch.optim.Optimizer:
    """The head has a rate of its own."""
    named = list(named)
    return torch.optim.SGD(
        [
            {"params": [p for name, p in named if name.startswith("head")], "lr": lr},
            {"params": [p for name, p in named if not name.startswith("head")], "lr": lr / 5},
        ],
        momentum=0.9,
    )


def first_two(params, lr: float = 0.05) -> torch.optim.Optimizer:
    """Trains the first two tensors alone, frozen or not."""
    return torch.optim.SGD(list(params)[:2], lr=lr)


def finds_nothing(params, lr: float = 0.05) -> torch.optim.Optimizer:
    """Its groups are empty."""
    return torch.optim.SGD([{"params": [p for p in params if p.is_sparse]}], lr=lr)


def lbfgs(params, lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(params, lr=lr)


def sparse_adam(params, lr: float = 0.01) -> torch.optim.Optimizer:
    return torch.optim.SparseAdam(params, lr=lr)


class Lookahead(torch.optim.Optimizer):
    """Every five steps the weights go half of the way back, to where they were."""

    def __init__(self, params, lr: float = 0.05):
        params = list(params)
        super().__init__(params, {"lr": lr})
        self.inner = torch.optim.Adam(params, lr=lr)
        self.slow = [p.detach().clone() for p in params]
        self.t = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.inner.step()
        self.t += 1
        if self.t % 5 == 0:
            for slow, p in zip(self.slow, self.param_groups[0]["params"], strict=True):
                slow.lerp_(p, 0.5)
                p.copy_(slow)


class Accumulates(torch.optim.SGD):
    """Steps once in four times, by the sum of the gradients."""

    def __init__(self, params, lr: float = 0.02):
        super().__init__(params, lr=lr)
        self.t, self.sums = 0, {}

    @torch.no_grad()
    def step(self, closure=None):
        self.t += 1
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.sums[p] = self.sums.get(p, 0) + p.grad
        if self.t % 4 == 0:
            for p, total in self.sums.items():
                p.grad.copy_(total)
            super().step()
            self.sums = {}


class CountsForAll(torch.optim.SGD):
    """Its rate falls with the steps of all optimizers of its class."""

    steps = 0

    def __init__(self, params, lr: float = 0.05):
        super().__init__(params, lr=lr)
        self.first = lr

    @torch.no_grad()
    def step(self, closure=None):
        CountsForAll.steps += 1
        self.param_groups[0]["lr"] = self.first / CountsForAll.steps
        super().step()


class Sam(torch.optim.SGD):
    """Needs the loss at other weights."""

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is not None, "sharpness-aware minimization needs a closure"


class NoisySgd(torch.optim.SGD):
    """Adds noise of torch to its weights."""

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(0.01 * torch.randn_like(p))


class LineOfNothing(torch.optim.Optimizer):
    """A mistake: it works on copies."""

    def __init__(self, params, lr: float = 0.05):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p = p - group["lr"] * p.grad


# Rules and schedules

SEEN = []


@clipbench.strategy(per="model")
def below_the_last(n, threshold) -> Tensor:
    """Scale the gradient to the smallest norm that the file remembers.

    g * min(1, c * min(n_1, ..., n_t) / n)
    """
    SEEN.append(float(n.min()))
    return (threshold * min(SEEN) / n).clamp(max=1), n > threshold * min(SEEN)


class Falls:
    def __init__(self):
        self.value = 1.0

    def __call__(self, step, steps) -> float:
        self.value *= 0.99
        return self.value


falls = Falls()


# Streams


def rare_classes(generator, batch_size: int) -> tuple:
    """Three classes; the third comes once in a thousand examples."""
    x = torch.randn(batch_size, FEATURES, generator=generator)
    rare = torch.rand(batch_size, generator=generator) < 1e-3
    return x, torch.where(rare, 2, (x[:, 0] > 0).long())
