"""Models and data of the tests' own, named in trials as a user names theirs: `tests.toys:scalar_rnn`."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.plugins.decorators import optimizer, strategy

# Objectives without data: the output is the loss.


class Objective(nn.Module):
    """A function of one number."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([start]))


def scalar_rnn(start: float, length: int = 50) -> nn.Module:
    """(w^T - 1)^2 / 2: a linear recurrent network of one unit that has to keep a 1 for T steps."""

    class ScalarRnn(Objective):
        def forward(self) -> Tensor:
            return (self.x**length - 1) ** 2 / 2

    return ScalarRnn(start)


def power(start: float, exponent: int = 2, factor: float = 0.5) -> nn.Module:
    """factor x^exponent."""

    class Power(Objective):
        def forward(self) -> Tensor:
            return factor * self.x**exponent

    return Power(start)


def slope(start: float, steepness: float) -> nn.Module:
    """A straight line, whose gradient is the same everywhere."""

    class Slope(Objective):
        def forward(self) -> Tensor:
            return steepness * self.x

    return Slope(start)


def scattered(seed: int = 0, scale: float = 1.0) -> nn.Module:
    """Tensors of every rank, a scalar and an untouched one, each with a gradient of its own size."""

    class Scattered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shapes = {"scalar": (), "vector": (5,), "matrix": (3, 4), "filters": (2, 3, 2, 2), "unused": (2,)}
            for name, shape in shapes.items():
                setattr(self, name, nn.Parameter(torch.randn(shape)))
            self.register_buffer("target", torch.full((), scale))

        def forward(self) -> Tensor:
            used = [self.scalar, self.vector, self.matrix, self.filters]
            return sum((10.0**-rank * (t - self.target) ** 2).sum() for rank, t in enumerate(used))

    return Scattered()


def explodes_at(step: int, how: str = "inf") -> nn.Module:
    """A calm bowl whose gradient is not finite at one step, which it counts in a buffer."""

    class Explodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.ones(3))
            self.register_buffer("step", torch.zeros(()))

        def forward(self) -> Tensor:
            self.step += 1
            bowl = (self.x**2).sum() / 2
            blow = torch.where(self.step == step, float(how), 0.0)
            return bowl + (self.x.sum() * blow if how == "nan" else self.x[0] * blow)

    return Explodes()


# Models that a tensor program cannot take, and odd ones that it can.


class Mlp(nn.Module):
    def __init__(self, inputs: int, outputs: int, hidden: int = 6) -> None:
        super().__init__()
        self.body = nn.Linear(inputs, hidden)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x)))


def plain(inputs: int, outputs: int) -> nn.Module:
    return Mlp(inputs, outputs)


def looks_at_numbers(inputs: int, outputs: int) -> nn.Module:
    """`plain`, but it reads a number of the batch, which vmap refuses."""

    class LooksAtNumbers(Mlp):
        def forward(self, x: Tensor) -> Tensor:
            assert np.isfinite(x.abs().sum().item() + self.body.weight.sum().item())
            return super().forward(x)

    return LooksAtNumbers(inputs, outputs)


def branches(inputs: int, outputs: int) -> nn.Module:
    """The size of its hidden layer's output decides which way it goes."""

    class Branches(Mlp):
        def forward(self, x: Tensor) -> Tensor:
            h = self.body(x)
            h = torch.relu(h) if h.mean().item() > 0 else torch.tanh(h)
            return self.head(h)

    return Branches(inputs, outputs)


def one_of_two_heads(inputs: int, outputs: int) -> nn.Module:
    """Each batch reaches one of its heads; the other has no gradient at that step."""

    class Heads(Mlp):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__(inputs, outputs)
            self.other = nn.Linear(self.head.in_features, outputs)

        def forward(self, x: Tensor) -> Tensor:
            h = self.body(x)
            return self.head(h) if x.sum().item() > x.shape[0] * 19.6 else self.other(h)

    return Heads(inputs, outputs)


def with_batch_norm(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, outputs))


def with_dropout(inputs: int, outputs: int, p: float = 0.5) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 6), nn.Dropout(p), nn.Tanh(), nn.Linear(6, outputs))


def never_stops_dropping(inputs: int, outputs: int) -> nn.Module:
    """A frequent mistake: dropout that evaluation does not turn off."""

    class NeverStops(Mlp):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.dropout(torch.tanh(self.body(x)), 0.5))

    return NeverStops(inputs, outputs)


def counts_batches(inputs: int, outputs: int, in_place: bool = True) -> nn.Module:
    """Its output depends on how many batches it has seen, which a buffer counts."""

    class Counts(Mlp):
        def __init__(self) -> None:
            super().__init__(inputs, outputs)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            if self.training and in_place:
                self.seen += 1
            elif self.training:
                self.seen = self.seen + 1
            return super().forward(x) * (1 + 0.1 * self.seen)

    return Counts()


def with_constant(inputs: int, outputs: int) -> nn.Module:
    """A buffer that differs by seed and never changes."""

    class Constant(Mlp):
        def __init__(self) -> None:
            super().__init__(inputs, outputs)
            self.register_buffer("mix", torch.randn(inputs))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * self.mix)

    return Constant()


def frozen_body(inputs: int, outputs: int) -> nn.Module:
    model = Mlp(inputs, outputs)
    model.body.requires_grad_(False)
    return model


def all_frozen(inputs: int, outputs: int) -> nn.Module:
    return Mlp(inputs, outputs).requires_grad_(False)


def tied(inputs: int, outputs: int) -> nn.Module:
    """One matrix used in two layers."""
    model = nn.Sequential(nn.Linear(inputs, inputs), nn.Tanh(), nn.Linear(inputs, inputs), nn.Linear(inputs, outputs))
    model[2].weight = model[0].weight
    return model


def with_scalar(inputs: int, outputs: int) -> nn.Module:
    class Scaled(Mlp):
        def __init__(self) -> None:
            super().__init__(inputs, outputs)
            self.gain = nn.Parameter(torch.tensor(0.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.gain * super().forward(x)

    return Scaled()


def with_idle_layer(inputs: int, outputs: int) -> nn.Module:
    """A layer that the output does not depend on."""
    model = Mlp(inputs, outputs)
    model.idle = nn.Linear(2, 2)
    return model


def returns_a_tuple(inputs: int, outputs: int) -> nn.Module:
    class Pair(Mlp):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), x

    return Pair(inputs, outputs)


def returns_no_module(inputs: int, outputs: int) -> nn.Module:
    return lambda x: x  # type: ignore[return-value]


def loss_per_example(output: Tensor, target: Tensor) -> Tensor:
    return (output - target) ** 2


# Metrics.


def by_numpy(output: Tensor, target: Tensor) -> Tensor:
    """Leaves torch, as metrics of other libraries do."""
    return torch.tensor(float(np.abs(output.numpy() - target.numpy()).max()))


def largest_error(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).abs().max()


def a_plain_number(output: Tensor, target: Tensor) -> float:
    return 0.5


# Data.


def line(examples: int = 40, features: int = 3, seed: int = 0, dtype: str = "float64") -> tuple:
    """A noiseless linear problem."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((examples, features)).astype(dtype)
    return x, (x @ np.arange(1.0, features + 1)[:, None]).astype(dtype)


def classes(counts: tuple = (30, 20, 10), seed: int = 0) -> tuple:
    """Separate clouds, one a class."""
    y = np.repeat(np.arange(len(counts)), counts)
    x = np.random.default_rng(seed).standard_normal((len(y), 4)) + 3 * y[:, None]
    return x, y


def sequences(features: int = 0, examples: int = 60, length: int = 6, answers: str = "one") -> tuple:
    """Random vectors, or tokens where there are no features; one class an example, or one a step."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((examples, length, features)) if features else draw.integers(0, 5, (examples, length))
    return x, draw.integers(0, 3, (examples, length) if answers == "steps" else examples)


# Gradients of the test's choice: a linear function's gradient is its coefficients.


def thrown(low: float = -3.0, high: float = 1.0) -> nn.Module:
    """Weights and gradients of every rank, drawn from the seed; gradients of sizes 10^low to 10^high by tensor."""

    class Thrown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shapes = {"filters": (2, 3, 2, 2), "matrix": (3, 4), "bias": (5,), "scalar": (), "dead": (2, 2)}
            for name, shape in shapes.items():
                size = 0.0 if name == "dead" else 10.0 ** float(low + (high - low) * torch.rand(()))
                setattr(self, name, nn.Parameter(torch.randn(shape)))
                self.register_buffer(f"{name}_gradient", torch.randn(shape) * size)

        def forward(self) -> Tensor:
            return sum((p * getattr(self, f"{name}_gradient")).sum() for name, p in self.named_parameters())

    return Thrown()


def with_gradients(weights: dict, gradients: dict) -> nn.Module:
    """Weights and gradients as they are given."""

    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, values in weights.items():
                setattr(self, name, nn.Parameter(torch.tensor(values)))
                self.register_buffer(f"{name}_gradient", torch.tensor(gradients[name]))

        def forward(self) -> Tensor:
            return sum((p * getattr(self, f"{name}_gradient")).sum() for name, p in self.named_parameters())

    return Given()


class Copies(torch.optim.Optimizer):
    """Puts the clipped gradient in the place of the weights, where a test can read it."""

    def __init__(self, params: object, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.copy_(parameter.grad)


def compares_examples(inputs: int, outputs: int) -> nn.Module:
    """Normalizes by the batch at hand, in evaluation too: an example's output depends on the others."""
    return nn.Sequential(
        nn.Linear(inputs, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Tanh(), nn.Linear(6, outputs)
    )


def one_dead_input() -> tuple:
    x, y = line(40)
    x[:, 1] = 0
    return x, y


def a_class_only_in_test() -> dict:
    x, y = classes((20, 20, 0, 6))
    return {"train": (x[:36], y[:36]), "test": (x[36:], y[36:])}


@optimizer(slots={"exp_avg": 0.0})
def lion(w, g, slots, t, lr=1e-3, betas=(0.9, 0.99), weight_decay: float = 0.0):
    """w - lr (sign(b1 m + (1 - b1) g) + decay w)       Chen et al. 2023, arXiv:2302.06675"""
    mean = slots["exp_avg"]
    step = (betas[0] * mean + (1 - betas[0]) * g).sign() + weight_decay * w
    return w - lr * step, {"exp_avg": betas[1] * mean + (1 - betas[1]) * g}


class Lion(torch.optim.Optimizer):
    """The same as an object with a state of its own."""

    def __init__(self, params: object, lr: float = 1e-3, betas=(0.9, 0.99), weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:
        for group in self.param_groups:
            one, two = group["betas"]
            for parameter in (each for each in group["params"] if each.grad is not None):
                mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
                step = (one * mean + (1 - one) * parameter.grad).sign() + group["weight_decay"] * parameter
                mean.mul_(two).add_(parameter.grad, alpha=1 - two)
                parameter.sub_(group["lr"] * step)


class Downhill(torch.optim.Optimizer):
    """Plain descent that takes any learning rate, a negative one too."""

    def __init__(self, params: object, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter -= group["lr"] * parameter.grad


class History(torch.optim.Optimizer):
    """Steps along the mean direction of the last three gradients; lays its parameters in groups of its own."""

    def __init__(self, params: list, lr: float) -> None:
        super().__init__([{"params": [p]} for p in reversed(params)], {"lr": lr})
        self.steps = 0

    @torch.no_grad()
    def step(self, closure: object = None) -> None:
        self.steps += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                past = self.state[parameter].setdefault("past", [])
                past[:] = [*past[-2:], parameter.grad / (parameter.grad.norm() + 1e-9)]
                parameter -= group["lr"] / self.steps**0.5 * torch.stack(past).mean(0)


class Jitters(torch.optim.Optimizer):
    """Plain descent with noise from the generator that everybody shares."""

    def __init__(self, params: list, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter -= group["lr"] * (parameter.grad + torch.randn_like(parameter))


class Flat(torch.optim.Optimizer):
    """Plain descent on views of its parameters, which it makes once."""

    def __init__(self, params: list, lr: float) -> None:
        super().__init__(params, {"lr": lr})
        self.flat = [[parameter.view(-1), parameter.grad.view(-1)] for parameter in params]

    @torch.no_grad()
    def step(self, closure: object = None) -> None:
        for weights, gradient in self.flat:
            weights -= self.defaults["lr"] * gradient


def constant_but_in_test(constant: float) -> dict:
    """A first column that varies nowhere but in the test part, where it is larger by 1."""
    x = np.column_stack([np.full(1000, constant), np.arange(1000.0)])
    other = x[:10] + np.array([1.0, 0.0])
    return {"train": (x, x[:, 1]), "test": (other, x[:10, 1])}


# Rules that remember.


@strategy(per="element", init={"rest": 0.0})
def u_clip(g: Tensor, threshold: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """What is cut off is added to the next gradient: arXiv:2302.02971."""
    whole = g + state["rest"]
    through = torch.maximum(torch.minimum(whole, threshold), -threshold)
    return through, {"rest": whole - through}


@strategy(per="model", init={"last": 0.0, "older": 0.0})
def by_history(n: Tensor, state: dict[str, Tensor], step: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The norm of two steps before, kept as it was given."""
    return state["older"], torch.full_like(n, step > 1, dtype=torch.bool), {"last": n, "older": state["last"]}


def tokens(examples: int = 40, length: int = 5, seed: int = 0) -> tuple:
    """Whole numbers that are names of symbols, and whether the first is 0."""
    x = np.random.default_rng(seed).integers(0, 4, (examples, length))
    return x, (x[:, 0] == 0).astype(int)


def blank(shape: tuple, value: float = 0.0, examples: int = 10) -> tuple:
    """Images of one colour."""
    return np.full((examples, *shape), value), np.arange(examples) % 2


# Fixed points of clipping single examples.


def points(points: tuple) -> dict:
    """Numbers to be averaged; there is nothing to look at."""
    targets = np.asarray(points, dtype=float).reshape(-1, 1)
    return {"train": (np.zeros_like(targets), targets)}


def one_number(inputs: int, outputs: int, start: float = 0.0) -> nn.Module:
    """The same number for every example."""

    class OneNumber(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.tensor([float(start)]))

        def forward(self, x: Tensor) -> Tensor:
            return self.x.expand(len(x), 1)

    return OneNumber()


def half_square(output: Tensor, target: Tensor) -> Tensor:
    return ((output - target) ** 2).mean() / 2


def on_the_circle(examples: int = 40, seed: int = 0) -> dict:
    """Inputs of norm 1, and a sign each."""
    draw = np.random.default_rng(seed)
    angle = draw.uniform(0, 2 * np.pi, examples)
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    signs = np.where(x[:, :1] + 0.3 * draw.standard_normal((examples, 1)) > 0, 1.0, -1.0)
    return {"train": (x, signs)}


def logistic(output: Tensor, target: Tensor) -> Tensor:
    return F.softplus(-output * target).mean()


def huberised(output: Tensor, target: Tensor, tau: float = 0.5) -> Tensor:
    """The logistic loss, a straight line of slope -tau where it is steeper."""
    margin = output * target
    corner = float(np.log(1 / tau - 1))  # sigmoid(-corner) = tau
    value = float(np.log1p(np.exp(-corner)))
    return torch.where(margin < corner, value + tau * (corner - margin), F.softplus(-margin)).mean()


def one_bad_example() -> dict:
    """Ten examples; of one the loss and its gradient are infinite."""
    x = np.random.default_rng(0).standard_normal((10, 3))
    y = x[:, :1].copy()
    y[7] = 1.5e308
    return {"train": (x, y)}
