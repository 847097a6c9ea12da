"""The trainings of experiments/scripts as loops typed without clipbench: each returns the losses of its steps.

Models and data are those of the scripts; seeds, clipping, steps of optimizers and schedules are typed.
"""

import itertools
import math
import random

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_


def seed_all(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def character_gpt(script, seed, limit, lr, epochs, characters):
    seed_all(seed)
    ((x, y), _, _), tokens = script.windows(characters)
    model = script.Gpt(tokens)
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "norm" in name]
    decayed = [p for p in model.parameters() if not any(p is other for other in plain)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0}], betas=(0.9, 0.95)
    )
    order = torch.Generator().manual_seed(seed)
    steps, losses = epochs * math.ceil(len(x) / 16), []
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).split(16):
            done = len(losses)
            rising, falling = (done + 1) / 41, 0.55 + 0.45 * math.cos(math.pi * (done - 40) / max(steps - 40, 1))
            for group in optimizer.param_groups:
                group["lr"] = lr * (rising if done < 40 else falling)
            torch.manual_seed(1_000_003 * seed + done + 1)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[rows]).transpose(1, 2), y[rows])
            loss.backward()
            clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
            losses.append(loss.item())
    return losses


def image_resnet(script, seed, limit, lr, epochs):
    seed_all(seed)
    model, optimizer, loader, schedule, *_ = script.build(seed, lr, 16, 4, epochs)
    losses = []
    for _ in range(epochs):
        for batches in by_four(loader):
            optimizer.zero_grad()
            parts = []
            for x, y in batches:
                loss = F.cross_entropy(model(script.augmented(x)), y)
                (loss / 4).backward()
                parts.append(loss.item() / 4)
            clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
            schedule.step()
            losses.append(sum(parts))
        script.evaluate(model, torch.zeros(1, 3, 32, 32), torch.zeros(1, dtype=torch.long))
    return losses


def by_four(loader):
    batches = iter(loader)
    while batch := list(itertools.islice(batches, 4)):
        yield batch


def word_lstm(script, seed, limit, lr, epochs, words):
    seed_all(seed)
    train, *_ = script.corpus(words)
    model = script.WordLstm()
    losses = []
    for _ in range(epochs):
        hidden = None
        for start in range(0, len(train) - 1, 20):
            x, y = train[start : start + 20], train[start + 1 : start + 21]
            x = x[: len(y)]
            if hidden is not None:
                hidden = tuple(state.detach() for state in hidden)
            model.zero_grad()
            scores, hidden = model(x, hidden)
            loss = F.cross_entropy(scores.view(-1, scores.shape[-1]), y.reshape(-1))
            loss.backward()
            clip_grad_norm_(model.parameters(), limit)
            with torch.no_grad():
                for p in model.parameters():
                    p -= lr * p.grad
            losses.append(loss.item())
    return losses


def ring_gan(script, seed, limit, lr, steps):
    seed_all(seed)
    generator, discriminator = script.mlp(8, 64, 64, 2), script.mlp(2, 64, 64, 1)
    update_g, update_d = (
        torch.optim.Adam(model.parameters(), lr=lr, betas=(0.5, 0.999)) for model in (generator, discriminator)
    )
    losses = []
    for _ in range(steps):
        x = script.real(128)
        fake = generator(torch.randn(128, 8))
        update_d.zero_grad()
        loss = F.softplus(-discriminator(x)).mean() + F.softplus(discriminator(fake.detach())).mean()
        loss.backward()
        clip_grad_norm_(discriminator.parameters(), limit)
        update_d.step()
        losses.append(loss.item())
        update_g.zero_grad()
        loss = F.softplus(-discriminator(fake)).mean()
        loss.backward()
        clip_grad_norm_(generator.parameters(), limit)
        update_g.step()
        losses.append(loss.item())
    return losses


def cartpole_reinforce(script, seed, limit, lr, episodes):
    seed_all(seed)
    policy = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
    optimizer = torch.optim.Adam(policy.parameters(), lr=lr)
    world, losses = script.CartPole(random.Random(seed)), []
    for _ in range(episodes):
        chosen = script.episode(policy, world)
        returns = torch.tensor([sum(0.99**later for later in range(left)) for left in range(len(chosen), 0, -1)])
        advantages = (returns - returns.mean()) / (returns.std(unbiased=False) + 1e-6)
        loss = -(advantages * chosen).sum()
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(policy.parameters(), limit)
        optimizer.step()
        losses.append(loss.item())
    return losses


def bert_trainer(script, seed, limit, lr, steps, accumulate, folder):
    """Trainer clips by itself, and logs the loss of each step."""
    seed_all(seed)
    trainer = script.make_trainer(seed, folder, lr, steps, accumulate)
    trainer.args.max_grad_norm, trainer.args.logging_strategy, trainer.args.logging_steps = limit, "steps", 1
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
