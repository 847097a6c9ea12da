"""Random parts and folds of examples: the indices of scikit-learn, without its import, which takes seconds."""

from __future__ import annotations

import numpy as np

Indices = np.ndarray


def random_part(examples: int, size: int, seed: int) -> tuple[Indices, Indices]:
    """Return the indices outside and inside a part of `size` examples, as `train_test_split` does."""
    order = np.random.RandomState(seed).permutation(examples)
    return order[size:], order[:size]


def stratified_part(classes: np.ndarray, size: int, seed: int) -> tuple[Indices, Indices]:
    """Return the indices outside and inside a part that has the same share of every class."""
    draw = np.random.RandomState(seed)
    members = _members(classes)
    counts = np.array([len(each) for each in members])
    outside = _in_proportion(counts, len(classes) - size, draw)
    _in_proportion(counts - outside, size, draw)  # changes no count, but scikit-learn draws here too
    mixed = [draw.permutation(each) for each in members]
    kept = [each[:count] for each, count in zip(mixed, outside, strict=True)]
    part = [each[count:] for each, count in zip(mixed, outside, strict=True)]
    return draw.permutation(np.concatenate(kept)), draw.permutation(np.concatenate(part))


def random_fold(examples: int, folds: int, fold: int, seed: int) -> tuple[Indices, Indices]:
    """Return the indices outside and inside one of `folds` parts of equal size, as `KFold` does."""
    part = np.array_split(np.random.RandomState(seed).permutation(examples), folds)[fold]
    return _outside_and_inside(np.isin(np.arange(examples), part))


def stratified_fold(classes: np.ndarray, folds: int, fold: int, seed: int) -> tuple[Indices, Indices]:
    """Return the indices outside and inside one of `folds` parts with equal shares of the classes."""
    draw = np.random.RandomState(seed)
    number_of, dealt = np.empty(len(classes), int), 0
    for members in sorted(_members(classes), key=lambda each: int(each[0])):  # classes in order of appearance
        numbers = np.sort(np.arange(dealt, dealt + len(members)) % folds)  # dealt to the folds in turn
        draw.shuffle(numbers)
        number_of[members] = numbers
        dealt += len(members)
    return _outside_and_inside(number_of == fold)


def _members(classes: np.ndarray) -> list[Indices]:
    """Return the indices of each class."""
    order = np.argsort(classes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(classes[order])) + 1)


def _in_proportion(counts: np.ndarray, size: int, draw: np.random.RandomState) -> np.ndarray:
    """Return how many of `size` examples are of each class: the largest remainders round up, ties at random."""
    exact = counts / counts.sum() * size
    rounded: np.ndarray = np.floor(exact)
    remainders = exact - rounded
    for remainder in np.unique(remainders)[::-1]:
        missing = int(size - rounded.sum())
        if missing:
            tied = np.flatnonzero(remainders == remainder)
            rounded[draw.choice(tied, min(len(tied), missing), replace=False)] += 1
    return rounded.astype(int)


def _outside_and_inside(inside: np.ndarray) -> tuple[Indices, Indices]:
    return np.flatnonzero(~inside), np.flatnonzero(inside)
