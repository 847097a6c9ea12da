"""Generated problems: curved boundaries, wrong labels, rare classes, heavy-tailed noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from clipbench.plugins.decorators import dataset
from clipbench.plugins.registry import DataProblem, find

Arrays = tuple[np.ndarray, np.ndarray]
Size = Annotated[int, Ge(10)]
Share = Annotated[float, Ge(0), Lt(1)]


@dataset()
def spirals(
    samples: Size = 600,
    classes: Annotated[int, Ge(2)] = 2,
    turns: Annotated[float, Gt(0)] = 1.5,
    noise: Annotated[float, Ge(0)] = 0.05,
    seed: int = 0,
) -> Arrays:
    """Intertwined spirals, one per class: two features in [-1, 1] plus noise.

    x = r (cos a, sin a) + noise N(0, 1), a = 2 pi (turns r + class / classes)
    """
    draw = np.random.default_rng(seed)
    y = np.arange(samples) % classes
    radius = np.sqrt(draw.uniform(size=samples))
    angle = 2 * np.pi * (turns * radius + y / classes)
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return x + noise * draw.standard_normal((samples, 2)), y


@dataset(loss="bce", metrics=("accuracy",))
def long_servedio(
    samples: Size = 1000,
    flip: Share = 0.2,
    gamma: Annotated[float, Gt(0)] = 1 / 24,
    std: Annotated[float, Ge(0)] = 0.01,
    test: Size = 500,
    seed: int = 0,
) -> Mapping[str, Arrays]:
    """Six narrow clouds on which flipped training labels mislead every convex loss; all other labels are true.

    +-(1, 0), +-(g, 5 g) of weight 1/8, +-(g, -g) of 1/4; y = [x_1 > 0]    Long, Servedio 2010; Menon et al. 2020
    """
    draw = np.random.default_rng(seed)
    sizes = {"train": samples, "val": test, "test": test}
    parts = {name: _long_servedio(draw, size, gamma, std) for name, size in sizes.items()}
    x, y = parts["train"]
    return parts | {"train": (x, np.where(draw.uniform(size=y.shape) < flip, 1 - y, y))}


def _long_servedio(draw: np.random.Generator, size: int, gamma: float, std: float) -> Arrays:
    atoms = np.array([[1.0, 0.0], [gamma, 5 * gamma], [gamma, -gamma]])
    chosen = atoms[draw.choice(3, size, p=[1 / 4, 1 / 4, 1 / 2])]
    y = draw.integers(0, 2, (size, 1)).astype(float)
    return (2 * y - 1) * chosen + std * draw.standard_normal((size, 2)), y


@dataset(standardize=True)
def label_noise(
    samples: Size = 1000,
    features: Annotated[int, Ge(2)] = 10,
    classes: Annotated[int, Ge(2)] = 3,
    flip: Share = 0.2,
    seed: int = 0,
) -> Mapping[str, Arrays]:
    """Classes whose training labels are changed to another class with probability `flip`; other labels are true.

    sklearn.datasets.make_classification; 60 % for training, 20 % each for val and test
    """
    x, y = _classification(samples, features, classes, None, seed)
    draw = np.random.default_rng(seed)
    noisy = np.where(draw.uniform(size=samples) < flip, (y + draw.integers(1, classes, samples)) % classes, y)
    return {name: (x[part], (noisy if name == "train" else y)[part]) for name, part in _three_parts(samples).items()}


@dataset(standardize=True, metrics=("accuracy", "balanced_accuracy", "f1"))
def imbalanced(
    samples: Size = 2000,
    features: Annotated[int, Ge(2)] = 10,
    classes: Annotated[int, Ge(2)] = 2,
    minority: Annotated[float, Gt(0), Le(0.5)] = 0.05,
    seed: int = 0,
) -> Arrays:
    """Classes of which all but the first are rare: `minority` is the share of each rare class.

    sklearn.datasets.make_classification
    """
    if minority * classes > 1:
        raise ValueError(f"minority must be at most 1 / classes = {1 / classes:g}, got {minority:g}")
    weights = [1 - minority * (classes - 1), *[minority] * (classes - 1)]
    return _classification(samples, features, classes, weights, seed)


@dataset(standardize=True, loss="bce", metrics=("accuracy", "f1"))
def multilabel(
    samples: Size = 1000,
    features: Annotated[int, Ge(2)] = 20,
    labels: Annotated[int, Ge(2)] = 5,
    seed: int = 0,
) -> Arrays:
    """Several binary labels for each example, each with a target of 0 or 1.

    sklearn.datasets.make_multilabel_classification
    """
    from sklearn.datasets import make_multilabel_classification

    x, y = make_multilabel_classification(samples, features, n_classes=labels, random_state=seed)
    return x, y.astype(float)


@dataset()
def heavy_tails(
    law: str = "student",
    samples: Size = 1000,
    features: Annotated[int, Ge(1)] = 10,
    scale: Annotated[float, Ge(0)] = 1.0,
    seed: int = 0,
    yaml_folder: str = "",
    **law_options: float,
) -> Mapping[str, Arrays]:
    """Linear regression with noise in the training targets only; options of the distribution `law` are options too.

    y = x w + s xi, x, w ~ N(0, 1)    `law` as in `train.noise`; 60 % for training, 20 % each for val and test
    """
    import torch

    draw = np.random.default_rng(seed)
    x, w = draw.standard_normal((samples, features)), draw.standard_normal((features, 1))
    y = x @ w
    generator = torch.Generator().manual_seed(seed)
    plugin = find("noise", law, yaml_folder)
    for name in set(law_options) - set(plugin.options):
        known = ", ".join(name for name in plugin.options if name != "scale")
        raise DataProblem(f"the law {law} has no option {name!r}; it has {known or 'no options'}.")
    xi = plugin.function((samples, 1), generator, **law_options)
    parts = _three_parts(samples)
    noisy = {"train": (x[parts["train"]], (y + scale * np.asarray(xi, float))[parts["train"]])}
    return {name: (x[part], y[part]) for name, part in parts.items()} | noisy


def _three_parts(samples: int) -> dict[str, slice]:
    """Return the slices of the parts: 60 % for training, 20 % each for val and test."""
    ends = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
    return {name: slice(round(low * samples), round(high * samples)) for name, (low, high) in ends.items()}


def _classification(samples: int, features: int, classes: int, weights: list[float] | None, seed: int) -> Arrays:
    from sklearn.datasets import make_classification

    informative = min(features, max(2, int(np.ceil(np.log2(2 * classes)))))
    x, y = make_classification(
        samples,
        features,
        n_informative=informative,
        n_redundant=0,
        n_classes=classes,
        n_clusters_per_class=1,
        weights=weights,
        flip_y=0,
        random_state=seed,
    )
    return x, y
