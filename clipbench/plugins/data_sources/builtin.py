"""Tables and images included in scikit-learn, and generated regression problems: no download."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from clipbench.plugins.decorators import dataset

Arrays = tuple[np.ndarray, np.ndarray]


@dataset()
def digits(rows: bool = False) -> Arrays:
    """1797 gray images of handwritten digits, 8 x 8 pixels in [0, 1], flat or as sequences of rows; 10 classes.

    sklearn.datasets.load_digits
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = x / 16.0
    return x.reshape(-1, 8, 8) if rows else x, y


@dataset(standardize=True)
def breast_cancer() -> Arrays:
    """569 tumors with 30 measurements each; benign or malignant.

    sklearn.datasets.load_breast_cancer
    """
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return x, y


@dataset(standardize=True)
def diabetes() -> Arrays:
    """442 patients with 10 measurements each; the target is the disease progression after a year, a real number.

    sklearn.datasets.load_diabetes
    """
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True, scaled=False)
    return x, y[:, None]


@dataset(standardize=True)
def wine() -> Arrays:
    """178 wines with 13 measurements each; 3 cultivars.

    sklearn.datasets.load_wine
    """
    from sklearn.datasets import load_wine

    x, y = load_wine(return_X_y=True)
    return x, y


@dataset()
def noise_regression(samples: int = 100, features: int = 10, seed: int = 0) -> Arrays:
    """Inputs and targets are independent N(0, 1) noise: there is nothing to learn.

    x, y ~ N(0, 1)
    """
    draw = np.random.default_rng(seed)
    return draw.standard_normal((samples, features)), draw.standard_normal((samples, 1))


@dataset(standardize=True)
def make_regression(
    samples: int = 1000,
    features: int = 10,
    informative: int = 5,
    noise: float = 10.0,
    seed: int = 0,
    targets: Annotated[int, Ge(1)] = 1,
) -> Arrays:
    """A random linear problem with Gaussian noise and one or several real targets.

    sklearn.datasets.make_regression
    """
    from sklearn.datasets import make_regression as generate

    x, y = generate(samples, features, n_informative=informative, n_targets=targets, noise=noise, random_state=seed)
    return x, y.reshape(samples, targets)
