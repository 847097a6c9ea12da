"""Parts, folds and bundled data are those of scikit-learn, bit by bit, without its import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import datasets as theirs
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from clipbench.datasets import stratified
from clipbench.plugins import registry

Indices = Iterable[np.ndarray]
seeds = st.integers(0, 2**32 - 1)
counts_of_classes = st.lists(st.integers(2, 40), min_size=1, max_size=8)


def mixed(counts: list[int], seed: int) -> np.ndarray:
    """Return so many labels of each class in a random order; the classes are neither sorted nor without gaps."""
    draw = np.random.default_rng(seed)
    return draw.permutation(np.repeat(draw.choice(np.arange(-5, 50), len(counts), replace=False), counts))


def assert_equal(ours: Indices, sklearn: Indices) -> None:
    for mine, other in zip(ours, sklearn, strict=True):
        np.testing.assert_array_equal(mine, other, strict=True)


@given(st.integers(2, 300), st.floats(0, 1), seeds)
def test_a_random_part(examples: int, share: float, seed: int):
    size = 1 + round(share * (examples - 2))
    expected = train_test_split(np.arange(examples), test_size=size, random_state=seed)
    assert_equal(stratified.random_part(examples, size, seed), expected)


@given(counts_of_classes, st.floats(0, 1), seeds)
def test_a_stratified_part(counts: list[int], share: float, seed: int):
    y = mixed(counts, seed)
    size = len(counts) + round(share * (len(y) - 2 * len(counts)))
    expected = train_test_split(np.arange(len(y)), test_size=size, random_state=seed, stratify=y)
    assert_equal(stratified.stratified_part(y, size, seed), expected)


@pytest.mark.parametrize("size", [10, 11, 17, 100, 250, 359, 1000])
def test_a_stratified_part_of_many_equal_classes_whose_shares_are_no_integers(size: int):
    y = np.random.default_rng(size).permutation(np.arange(1797) % 10)
    for seed in range(20):
        expected = train_test_split(np.arange(len(y)), test_size=size, random_state=seed, stratify=y)
        assert_equal(stratified.stratified_part(y, size, seed), expected)


@given(st.integers(0, 200), st.integers(2, 12), seeds)
def test_random_folds(more: int, folds: int, seed: int):
    examples = folds + more
    for fold, expected in enumerate(KFold(folds, shuffle=True, random_state=seed).split(np.zeros(examples))):
        assert_equal(stratified.random_fold(examples, folds, fold, seed), expected)


@given(counts_of_classes, st.integers(2, 12), seeds)
def test_stratified_folds(more: list[int], folds: int, seed: int):
    y = mixed([folds + count for count in more], seed)
    for fold, expected in enumerate(StratifiedKFold(folds, shuffle=True, random_state=seed).split(y, y)):
        assert_equal(stratified.stratified_fold(y, folds, fold, seed), expected)


BUNDLED = {
    "digits": lambda: (theirs.load_digits().data / 16, theirs.load_digits().target),
    "breast_cancer": lambda: theirs.load_breast_cancer(return_X_y=True),
    "diabetes": lambda: theirs.load_diabetes(scaled=False, return_X_y=True),
    "wine": lambda: theirs.load_wine(return_X_y=True),
    "make_regression": lambda: theirs.make_regression(1000, 10, n_informative=5, noise=10.0, random_state=0),
}


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_data(name: str):
    (x, y), (expected_x, expected_y) = registry.find("data", name).function(), BUNDLED[name]()
    assert_equal((x, y.ravel()), (expected_x, expected_y))


@pytest.mark.parametrize("samples, features, informative, noise, targets", [(50, 3, 9, 0.0, 1), (300, 20, 0, 1.0, 4)])
def test_a_linear_problem(samples: int, features: int, informative: int, noise: float, targets: int):
    options = {"samples": samples, "features": features, "informative": informative, "noise": noise, "seed": 3}
    x, y = registry.find("data", "make_regression").function(**options, targets=targets)
    expected = theirs.make_regression(
        samples, features, n_informative=informative, noise=noise, n_targets=targets, random_state=3
    )
    assert_equal((x, y.squeeze()), expected)


def test_a_worker_loads_and_splits_these_without_scikit_learn():
    """Its import would take as long as that of torch."""
    code = f"""
import importlib, sys
from clipbench.execution.import_server import PRELOAD
for name in PRELOAD:
    importlib.import_module(name)
from clipbench import datasets
from clipbench.core.trial import Component
for name in {list(BUNDLED)}:
    for folds in ({{}}, {{"folds": 3, "fold": 0}}):
        datasets.load(Component.of(name, **folds))
print([name for name in ("sklearn", "scipy", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
