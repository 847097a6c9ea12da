"""Records as the engine would return them, without training anything."""

import numpy as np

from clipbench.core.records import Records
from clipbench.core.trial import Component, Training, Trial


def trial(seed=0, optimizer="sgd", **options):
    return Trial(
        data=Component.of("digits"),
        model=Component.of("mlp", hidden=(128,)),
        optimizer=Component.of(optimizer, lr=0.1, **options),
        train=Training(),
        clip=Component.of("norm", threshold=1.0),
        seed=seed,
    )


def chunk(trials, epochs=3, steps=12, **columns):
    """What a cohort of these trials would return."""
    count = len(trials)
    rows = [one.columns() for one in trials]
    records = {"id": np.array([one.id for one in trials]), "status": np.array(["finished"] * count)}
    names = dict.fromkeys(name for row in rows for name in row)
    records |= {name: np.array([row.get(name) for row in rows], dtype=object) for name in names}
    records |= {"test/accuracy": np.linspace(0.8, 0.9, count), "diverged": np.zeros(count)}
    records |= {"diverged_step": np.full(count, np.nan), "error": np.array([None] * count)}
    return Records(
        records | {name: np.asarray(column) for name, column in columns.items()},
        series(trials, "epoch", epochs, ["train/loss", "val/accuracy"]),
        series(trials, "step", steps, ["train/loss", "grad_norm/pre"]),
    )


def series(trials, key, length, measures):
    columns = {
        "id": np.repeat([one.id for one in trials], length),
        key: np.tile(np.arange(1, length + 1, dtype=np.int32), len(trials)),
    }
    noise = np.random.default_rng(0).random((len(measures), length * len(trials)), dtype=np.float32)
    return columns | dict(zip(measures, noise, strict=True))
