"""A training script, and the same training as a loop typed by hand."""

import random

import numpy as np
import torch
from torch import nn

STEPS, BATCH = 24, 16


def build(lr, width):
    model = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Dropout(0.2), nn.Linear(width, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    x = torch.randn(200, 8) + torch.tensor(np.random.rand(200, 8), dtype=torch.float32)
    y = (x[:, :1] * x[:, 1:2]).tanh() * 10
    train = torch.utils.data.TensorDataset(x[:128], y[:128])
    return model, optimizer, torch.utils.data.DataLoader(train, BATCH, shuffle=True), (x[128:], y[128:])


def evaluate(model, held_out):
    model.eval()
    with torch.no_grad():
        loss = nn.functional.mse_loss(model(held_out[0]), held_out[1])
    model.train()
    return loss


def main(clip, seed, lr=1e-2, width=8, kill_at=0, marker=""):
    clip.seed_all()
    model, optimizer, loader, held_out = build(lr, width)
    clip.attach(model, optimizer)
    state = clip.resume() or {"epoch": 0}
    if "model" in state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    for epoch in range(state["epoch"], 3):
        for x, y in clip.steps(loader):
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            clip.step(loss)
            die(kill_at, len(clip.log), marker)
        if clip.report({"val/loss": evaluate(model, held_out)}):
            return None
        clip.save({"epoch": epoch + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
    return {"test/loss": evaluate(model, held_out), "test/bleu": 0.5}


def die(kill_at, step, marker):
    """Be killed once at a step."""
    import os
    from pathlib import Path

    if kill_at == step and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), 9)


def by_hand(clip_gradient, seed, lr=1e-2, width=8):
    """Return the losses of the steps, the validation losses, and the test loss."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    model, optimizer, loader, held_out = build(lr, width)
    losses, validation = [], []
    for _ in range(3):
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            clip_gradient(model)
            optimizer.step()
            losses.append(loss.item())
        validation.append(float(evaluate(model, held_out)))
    return losses, validation, float(evaluate(model, held_out))
