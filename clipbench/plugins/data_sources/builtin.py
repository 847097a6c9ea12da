"""Tables and images included in scikit-learn, and generated regression problems: no download."""

from __future__ import annotations

from importlib.metadata import distribution
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from clipbench.plugins.decorators import dataset

Arrays = tuple[np.ndarray, np.ndarray]


@dataset()
def digits(rows: bool = False) -> Arrays:
    """1797 gray images of handwritten digits, 8 x 8 pixels in [0, 1], flat or as sequences of rows; 10 classes.

    sklearn.datasets.load_digits
    """
    table = _table("digits.csv.gz", delimiter=",")
    x, y = table[:, :-1] / 16.0, table[:, -1].astype(int)
    return x.reshape(-1, 8, 8) if rows else x, y


@dataset(standardize=True)
def breast_cancer() -> Arrays:
    """569 tumors with 30 measurements each; benign or malignant.

    sklearn.datasets.load_breast_cancer
    """
    table = _table("breast_cancer.csv", delimiter=",", skiprows=1)
    return table[:, :-1], table[:, -1].astype(int)


@dataset(standardize=True)
def diabetes() -> Arrays:
    """442 patients with 10 measurements each; the target is the disease progression after a year, a real number.

    sklearn.datasets.load_diabetes
    """
    return _table("diabetes_data_raw.csv.gz"), _table("diabetes_target.csv.gz")[:, None]


@dataset(standardize=True)
def wine() -> Arrays:
    """178 wines with 13 measurements each; 3 cultivars.

    sklearn.datasets.load_wine
    """
    table = _table("wine_data.csv", delimiter=",", skiprows=1)
    return table[:, :-1], table[:, -1].astype(int)


@dataset()
def noise_regression(samples: int = 100, features: int = 10, seed: int = 0) -> Arrays:
    """Inputs and targets are independent N(0, 1) noise: there is nothing to learn.

    x, y ~ N(0, 1)
    """
    draw = np.random.default_rng(seed)
    return draw.standard_normal((samples, features)), draw.standard_normal((samples, 1))


@dataset(standardize=True)
def make_regression(
    samples: Annotated[int, Ge(1)] = 1000,
    features: Annotated[int, Ge(1)] = 10,
    informative: Annotated[int, Ge(0)] = 5,
    noise: Annotated[float, Ge(0)] = 10.0,
    seed: int = 0,
    targets: Annotated[int, Ge(1)] = 1,
) -> Arrays:
    """A random linear problem with Gaussian noise and one or several real targets.

    sklearn.datasets.make_regression
    """
    draw = np.random.RandomState(seed)
    x = draw.standard_normal((samples, features))
    slopes = np.zeros((features, targets))
    slopes[:informative] = 100 * draw.uniform(size=(min(informative, features), targets))
    y = x @ slopes
    if noise:
        y += draw.normal(scale=noise, size=y.shape)
    rows, columns = draw.permutation(samples), draw.permutation(features)
    return x[rows].take(columns, axis=1), y[rows]


def _table(file: str, **reading: Any) -> np.ndarray:
    """Read a data file of scikit-learn without importing it, which would take as long as importing torch."""
    path = distribution("scikit-learn").locate_file(f"sklearn/datasets/data/{file}")
    return np.loadtxt(str(path), **reading)
