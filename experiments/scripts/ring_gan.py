"""A GAN on eight points in a ring: two models, each with its own optimizer, that are attached by name."""

import itertools
import math

import torch
from torch import nn
from torch.nn import functional as F

import clipbench

BATCH, NOISE = 128, 8


def real(count, generator=None):
    """Points near eight places on a circle."""
    angle = torch.randint(8, (count,), generator=generator) * (math.pi / 4)
    centre = torch.stack([angle.cos(), angle.sin()], dim=1)
    return centre + 0.05 * torch.randn(count, 2, generator=generator)


def mlp(*sizes):
    layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.LeakyReLU(0.2))]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def energy(generator, held_out, noise):
    """The energy distance between what is generated and what is real; 0 if both have the same distribution."""
    fake = generator(noise)
    within = torch.cdist(fake, fake).mean() + torch.cdist(held_out, held_out).mean()
    return 2 * torch.cdist(fake, held_out).mean() - within


def main(clip, seed, lr=1e-3, steps=600):
    clip.seed_all()
    generator, discriminator = mlp(NOISE, 64, 64, 2), mlp(2, 64, 64, 1)
    adam = {"lr": lr, "betas": (0.5, 0.999)}
    optimizer_g = torch.optim.Adam(generator.parameters(), **adam)
    optimizer_d = torch.optim.Adam(discriminator.parameters(), **adam)
    clip.attach(generator, optimizer_g, name="generator", steps=steps)
    clip.attach(discriminator, optimizer_d, name="discriminator", steps=steps)

    held_out = torch.Generator().manual_seed(0)
    val, test = real(500, held_out), real(500, held_out)
    noise = torch.randn(500, NOISE, generator=held_out)
    for step, x in enumerate(clip.steps(real(BATCH) for _ in range(steps)), 1):
        fake = generator(torch.randn(BATCH, NOISE))
        # The generator's loss leaves gradients in the discriminator, which do not belong to the discriminator's loss.
        optimizer_d.zero_grad()
        loss_d = F.softplus(-discriminator(x)).mean() + F.softplus(discriminator(fake.detach())).mean()
        loss_d.backward()
        clip.step(loss_d, name="discriminator")

        loss_g = F.softplus(-discriminator(fake)).mean()
        loss_g.backward()
        clip.step(loss_g, name="generator")
        if step % (steps // 4) == 0 and clip.report({"val/energy": energy(generator, val, noise)}):
            return None
    return {"test/energy": energy(generator, test, noise)}


if __name__ == "__main__":
    clip = clipbench.clip_from_args()
    print(main(clip, clip.seed))
