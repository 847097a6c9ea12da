"""A training script that goes wrong in the way that `how` says."""

import multiprocessing
import os
import sys
import time

import torch
from torch import nn


def main(clip, seed, how="", lr=0.1):
    clip.seed_all()
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    inputs = torch.randn(64, 4)
    clip.attach(model, optimizer)
    print(f"this is {clip.arm} of seed {seed}: {how}")
    for step, x in enumerate(clip.steps(inputs.split(8))):
        loss = model(x).square().mean()
        if how == "no backward":
            clip.step(loss)
        loss.backward()
        if how != "no step":
            clip.step(loss)
        if how == "twice":
            clip.step(loss + 0)
        if how == "own step":
            model(x).square().mean().backward()
            optimizer.step()
        if step == 3:
            misbehave(how)
        if step == 3 and how == "fork" and os.fork() == 0:
            continue  # the child goes on as if it were alone
        if how == "diverges" and step == 4:
            with torch.no_grad():
                model.weight.fill_(float("inf"))
    if how == "bad report":
        clip.report({"loss": 1.0})
    if how == "bad measure":
        clip.report({"val/loss": "low"})
    if how == "returns nothing":
        return None
    if how == "returns a number":
        return 0.5
    return {"test/loss": model(inputs).square().mean(), "val/loss": 0.0}


def misbehave(how):
    if how == "raises":
        raise RuntimeError("the cat sat on the keyboard")
    if how == "hangs":
        time.sleep(1000)
    if how == "exits":
        sys.exit(3)
    if how == "dies":
        print("about to die", flush=True)
        os._exit(7)
    if how == "killed":
        os.kill(os.getpid(), 9)
    if how == "prints":
        for _ in range(60):
            print("x" * 2_000_000)
    if how == "eats":
        kept = torch.ones(250_000_000)  # 1 GB
        time.sleep(5)
        del kept
    if how == "asks":
        input("are you there?")
    if how == "leaves a process":
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,)).start()
