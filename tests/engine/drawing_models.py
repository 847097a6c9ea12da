"""Models that draw random numbers, as people write them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDE, STEPS = 6, 4


class Body(nn.Module):
    """A layer, what a function makes of it with random numbers in training, and a head."""

    def __init__(self, inputs: int, outputs: int, noisy: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(inputs, WIDE), nn.Linear(WIDE, outputs)
        self.noisy = noisy

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.body(x))
        return self.head(self.noisy(hidden) if self.training else hidden)


def _categorical(x: Tensor) -> Tensor:
    chosen = torch.distributions.Categorical(logits=x, validate_args=False).sample()
    return x * F.one_hot(chosen, WIDE).to(x.dtype)


NOISES: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: F.dropout(x, 0.3),
    "nothing is kept": lambda x: F.dropout(x, 1.0),
    "channels dropped": lambda x: F.dropout1d(x.unsqueeze(0), 0.3).squeeze(0),
    "alpha dropout": lambda x: F.alpha_dropout(x, 0.3, training=True),
    "dropout of a transposed tensor": lambda x: F.dropout(x.T, 0.3).T,
    "dropout in place": lambda x: F.dropout(x.clone(), 0.3, inplace=True),
    "noise": lambda x: x + 0.1 * torch.randn_like(x),
    "noise of one number": lambda x: x * torch.rand(()),
    "uniform noise": lambda x: x + torch.rand(x.shape, dtype=x.dtype),
    "a mask": lambda x: x * (torch.rand_like(x) < 0.5),
    "a normal law": lambda x: torch.normal(x, 0.1),
    "a normal law of a tensor": lambda x: torch.normal(x, x.detach().abs()),
    "reparametrization": lambda x: torch.distributions.Normal(x, 0.5, validate_args=False).rsample(),
    "numbers in place": lambda x: x + torch.empty_like(x).uniform_(-0.1, 0.1) + torch.empty_like(x).normal_(0, 0.1),
    "whole numbers": lambda x: x * torch.randint(0, 3, x.shape),
    "whole numbers in place": lambda x: x * torch.empty_like(x).random_(0, 3),
    "an order": lambda x: 0.5 * (x + x[torch.randperm(len(x))]),
    "probabilities": lambda x: x * torch.bernoulli(torch.sigmoid(x.detach())),
    "a class": lambda x: x * F.one_hot(torch.multinomial(x.detach().softmax(1), 1).squeeze(1), WIDE),
    "classes": lambda x: x.gather(1, torch.multinomial(x.detach().softmax(1), 2)).repeat(1, WIDE // 2),
    "a categorical law": _categorical,
    "gumbel": lambda x: F.gumbel_softmax(x, tau=0.5),
    "gumbel, hard": lambda x: F.gumbel_softmax(x, tau=0.5, hard=True),
    "two draws": lambda x: F.dropout(x + torch.randn_like(x), 0.5),
}


def drawing(inputs: int, outputs: int, noise: str) -> nn.Module:
    return Body(inputs, outputs, NOISES[noise])


class Sequences(nn.Module):
    """Layers with dropout of their own, on sequences."""

    def __init__(self, inputs: int, outputs: int, cells: str) -> None:
        super().__init__()
        self.into, self.head = nn.Linear(inputs, STEPS * WIDE), nn.Linear(WIDE, outputs)
        self.cells = SEQUENCE_LAYERS[cells]()

    def forward(self, x: Tensor) -> Tensor:
        states = self.cells(self.into(x).unflatten(1, (STEPS, WIDE)))
        states = states[0] if isinstance(states, tuple) else states
        return self.head(states.mean(1)[:, :WIDE])


class Attention(nn.Module):
    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.attention, self.need_weights = nn.MultiheadAttention(WIDE, 2, 0.2, batch_first=True), need_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


class Masked(nn.Module):
    """Attention with a mask, by PyTorch's own function."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(STEPS, STEPS, dtype=torch.bool).tril()
        return F.scaled_dot_product_attention(x, x, x, attn_mask=mask, dropout_p=0.2 if self.training else 0.0)


SEQUENCE_LAYERS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: nn.LSTM(WIDE, WIDE, 3, dropout=0.3, batch_first=True),
    "gru": lambda: nn.GRU(WIDE, WIDE, 2, dropout=0.3, batch_first=True, bidirectional=True),
    "rnn": lambda: nn.RNN(WIDE, WIDE, 2, dropout=0.3, batch_first=True),
    "encoder": lambda: nn.TransformerEncoderLayer(WIDE, 2, 12, dropout=0.2, batch_first=True),
    "attention": lambda: Attention(need_weights=False),
    "attention with weights": lambda: Attention(need_weights=True),
    "attention with a mask": Masked,
}


def sequences(inputs: int, outputs: int, cells: str) -> nn.Module:
    return Sequences(inputs, outputs, cells)


class Vae(nn.Module):
    """A variational autoencoder, whose output is its loss; it draws in eval mode too."""

    def __init__(self, inputs: int, latent: int = 2) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(inputs, 2 * latent), nn.Linear(latent, inputs)

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        code = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
        return (((self.decoder(code) - x) ** 2).sum(1) + divergence).mean()


def vae(inputs: int) -> nn.Module:
    return Vae(inputs)


class NoisyOutput(nn.Module):
    """It draws in eval mode too, and has an output for each example."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) + 0.1 * torch.randn(len(x), 1, dtype=x.dtype)


def noisy_output(inputs: int, outputs: int) -> nn.Module:
    return NoisyOutput(inputs, outputs)


# Normalization by the batch


class Normalizing(nn.Module):
    def __init__(self, inputs: int, outputs: int, layer: str) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(inputs, 24), NORMALIZATIONS[layer](), nn.Linear(24, outputs)
        self.shape = {"1d": (24,), "sequences": (6, 4), "3d": (3, 2, 2, 2)}.get(layer, (6, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.body(x).unflatten(1, self.shape))
        return self.head(torch.tanh(hidden).flatten(1))


class Frozen(nn.BatchNorm2d):
    """It keeps its running statistics, as in fine-tuning."""

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(False)


NORMALIZATIONS: dict[str, Callable[[], nn.Module]] = {
    "1d": lambda: nn.BatchNorm1d(24),
    "sequences": lambda: nn.BatchNorm1d(6),
    "2d": lambda: nn.BatchNorm2d(6),
    "3d": lambda: nn.BatchNorm3d(3),
    "without weights": lambda: nn.BatchNorm2d(6, affine=False),
    "without running statistics": lambda: nn.BatchNorm2d(6, track_running_stats=False),
    "momentum": lambda: nn.BatchNorm2d(6, momentum=0.5, eps=1e-3),
    "frozen": lambda: Frozen(6),
    "instances": lambda: nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
}


def normalizing(inputs: int, outputs: int, layer: str) -> nn.Module:
    return Normalizing(inputs, outputs, layer)
