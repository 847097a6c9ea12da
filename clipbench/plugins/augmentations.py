"""Augmentations: random changes of the examples of a batch, drawn from the generator of the seed."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Generator, Tensor
from torch.nn import functional as F

from clipbench.plugins.decorators import augmentation

Probability = Annotated[float, Ge(0), Le(1)]


@augmentation()
def flip(x: Tensor, generator: Generator, p: Probability = 0.5) -> Tensor:
    """Mirror each image with the probability `p`: the last axis of [C, H, W] or [H, W] is reversed.

    x[..., ::-1]                    torchvision.transforms.RandomHorizontalFlip
    """
    chosen = torch.rand(len(x), generator=generator) < p
    return torch.where(chosen.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)


@augmentation()
def shift(x: Tensor, generator: Generator, pixels: Annotated[int, Ge(1)] = 4) -> Tensor:
    """Move each image of [C, H, W] or [H, W] by up to `pixels` in both directions; what comes in is 0.

    x[i + a, j + b], a, b ~ U{-pixels, ..., pixels}         torchvision.transforms.RandomCrop(size, padding)
    """
    height, width = x.shape[-2:]
    padded = F.pad(x, (pixels,) * 4)
    moved = torch.randint(0, 2 * pixels + 1, (2, len(x)), generator=generator).tolist()
    places = zip(padded, *moved, strict=True)
    return torch.stack([image[..., top : top + height, left : left + width] for image, top, left in places])


@augmentation()
def jitter(x: Tensor, generator: Generator, std: Annotated[float, Ge(0)] = 0.1) -> Tensor:
    """Add Gaussian noise to every input.

    x + std N(0, 1)                 Sietsma and Dow 1991
    """
    return x + std * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@augmentation()
def mixup(
    x: Tensor, y: Tensor, generator: Generator, outputs: int, alpha: Annotated[float, Gt(0)] = 0.2
) -> tuple[Tensor, Tensor]:
    """Mix each example with another one of the batch, in one proportion for all. Classes become probabilities.

    r x + (1 - r) x', r y + (1 - r) y', r ~ Beta(alpha, alpha)      Zhang et al. 2017, arXiv:1710.09412
    """
    targets = y if y.is_floating_point() else F.one_hot(y, outputs).to(x.dtype)
    share, other_share = torch._sample_dirichlet(torch.full((2,), alpha, dtype=torch.float64), generator).tolist()
    other = torch.randperm(len(x), generator=generator)
    return share * x + other_share * x[other], share * targets + other_share * targets[other]
