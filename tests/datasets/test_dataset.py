"""A data set is split once and for all, scaled by its training part, known by its content, and refused if it is broken."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest

from clipbench import datasets
from clipbench.core.trial import Component
from clipbench.datasets import DataProblem, Dataset
from clipbench.plugins import registry

C = Component.of
PARTS = {"split.val": 0.2, "split.test": 0.2, "split.seed": 0}
CLASSES = C("tests.toys:classes", counts=(30, 20, 10), **PARTS)


def line(**options: object) -> Component:
    return C("tests.toys:line", **{**PARTS, **options})


def sizes(loaded: Dataset) -> tuple[int, int, int]:
    parts = (loaded.train, loaded.val, loaded.test)
    return tuple(len(part[0]) if part else 0 for part in parts)


def rows(part: tuple[np.ndarray, np.ndarray]) -> set[bytes]:
    return {row.tobytes() for row in part[0]}


# The partition


@pytest.mark.parametrize(
    "examples, val, test, expected",
    [
        (100, 0.2, 0.2, (60, 20, 20)),
        (100, 0.0, 0.2, (80, 0, 20)),
        (100, 0.2, 0.0, (80, 20, 0)),
        (100, 0.0, 0.0, (100, 0, 0)),
        (100, 0.98, 0.01, (1, 98, 1)),
        (13, 0.2, 0.2, (7, 3, 3)),
        (3, 0.2, 0.2, (1, 1, 1)),
    ],
)
def test_parts_have_their_shares_of_the_whole(examples, val, test, expected):
    loaded = datasets.load(line(examples=examples, **{"split.val": val, "split.test": test}))
    assert sizes(loaded) == expected
    every = [part for part in (loaded.train, loaded.val, loaded.test) if part]
    assert len(set().union(*map(rows, every))) == examples  # nothing twice, nothing lost
    for x, y in every:
        np.testing.assert_allclose(x @ [1.0, 2.0, 3.0], y[:, 0])


def test_classes_keep_their_shares_in_every_part():
    loaded = datasets.load(CLASSES)
    assert sizes(loaded) == (36, 12, 12)
    for part, expected in ((loaded.train, (18, 12, 6)), (loaded.val, (6, 4, 2)), (loaded.test, (6, 4, 2))):
        assert tuple(np.bincount(part[1])) == expected


def test_a_class_with_one_example_is_no_reason_to_fail():
    loaded = datasets.load(C("tests.toys:classes", counts=(30, 1), **PARTS))
    assert sum(sizes(loaded)) == 31
    assert loaded.outputs == 2


def test_the_partition_depends_on_its_own_seed_and_on_nothing_else():
    np.random.seed(1)
    one = datasets.read(line(examples=50))
    np.random.seed(2)
    same = datasets.read(line(examples=50))
    other = datasets.load(line(examples=50, **{"split.seed": 1}))
    assert rows(one.test) == rows(same.test) and one.fingerprint == same.fingerprint
    assert rows(one.test) != rows(other.test) and one.fingerprint != other.fingerprint


def test_the_test_part_does_not_depend_on_the_share_for_validation():
    one, other = (datasets.load(line(examples=50, **{"split.val": share})) for share in (0.2, 0.1))
    assert rows(one.test) == rows(other.test)


def test_a_limit_cuts_the_training_part_alone():
    whole, cut = datasets.load(line(examples=50)), datasets.load(line(examples=50, limit=7))
    assert sizes(cut) == (7, 10, 10)
    assert rows(cut.train) < rows(whole.train) and rows(cut.test) == rows(whole.test)
    assert sizes(datasets.load(line(examples=50, limit=1000))) == (30, 10, 10)


# Scaling


def test_standardizing_looks_at_the_training_part_alone():
    raw, scaled = datasets.load(line(examples=50)), datasets.load(line(examples=50, standardize=True))
    for index in (0, 1):  # real targets too
        np.testing.assert_allclose(scaled.train[index].mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(scaled.train[index].std(0), 1)
        mean, std = raw.train[index].mean(0), raw.train[index].std(0)
        np.testing.assert_allclose(scaled.test[index], (raw.test[index] - mean) / std)
    assert abs(scaled.test[0].mean()) > 1e-3


def test_classes_are_not_scaled():
    raw = datasets.load(CLASSES)
    scaled = datasets.load(C("tests.toys:classes", counts=(30, 20, 10), standardize=True, **PARTS))
    np.testing.assert_array_equal(raw.train[1], scaled.train[1])


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e10])
def test_a_column_that_does_not_vary_is_centred_and_not_blown_up(constant):
    """The standard deviation of 1000 times 0.1 is 1e-17, not 0."""
    loaded = datasets.load(C("tests.toys:constant_but_in_test", constant=constant, standardize=True))
    np.testing.assert_allclose(loaded.train[0][:, 0], 0, atol=1e-5)
    np.testing.assert_allclose(loaded.test[0][:, 0], 1, atol=1e-5)


# Content


def test_the_fingerprint_follows_every_change_of_the_content():
    changes = [
        line(examples=50),
        line(examples=51),
        line(examples=50, seed=1),
        line(examples=50, dtype="float32"),
        line(examples=50, standardize=True),
        line(examples=50, limit=7),
        line(examples=50, **{"split.test": 0.1}),
        line(examples=50, **{"split.test": 0.0}),
        CLASSES,
    ]
    fingerprints = [datasets.load(change).fingerprint for change in changes]
    assert len(set(fingerprints)) == len(changes)
    assert datasets.read(changes[0]).fingerprint == fingerprints[0]


def test_sizes_are_told_as_models_ask_for_them():
    assert (datasets.load(line(features=5)).inputs, datasets.load(line(features=5)).outputs) == (5, 1)
    assert (datasets.load(CLASSES).inputs, datasets.load(CLASSES).outputs) == (4, 3)
    assert datasets.load(CLASSES).classes and not datasets.load(line()).classes
    assert datasets.load(C("tests.toys:a_class_only_in_test")).outputs == 4


FIXED = [
    name
    for name, plugin in registry.catalogue("data").items()
    if not plugin.is_stream and all(option.default is not registry.REQUIRED for option in plugin.options.values())
]


@pytest.mark.parametrize("name", FIXED)
def test_built_in_data_are_whole_split_and_the_same_every_time(name):
    plugin = registry.catalogue("data")[name]
    options = {option.name: option.default for option in plugin.options.values()}
    component = C(name, **options, **PARTS, standardize=plugin.facts["standardize"])
    one, again = datasets.read(component), datasets.read(component)
    assert one.fingerprint == again.fingerprint
    assert one.val and one.test and len(one.train[0]) > len(one.test[0]) > 0
    assert np.isfinite(one.train[0]).all()
    if name == "digits":
        assert one.train[0].min() == 0 and one.train[0].max() == 1
    elif plugin.facts["standardize"]:
        np.testing.assert_allclose(one.train[0].mean(0), 0, atol=1e-9)


# What is refused

BROKEN = """
    import numpy as np
    x, y = np.ones((20, 2)), np.ones(20)
    bad = np.where(np.arange(20) == 3, np.nan, 1.0)
    def nan_inputs(): return x * bad[:, None], y
    def nan_targets(): return x, y * bad
    def infinite(): return np.where(np.arange(40).reshape(20, 2) == 3, np.inf, x), y
    def nan_in_test(): return {"train": (x, y), "test": (x * bad[:, None], y)}
    def lengths(): return x, y[:-1]
    def lengths_in_part(): return {"train": (x, y), "val": (x, y[:-1])}
    def negative(): return x, np.arange(20) % 3 - 1
    def negative_in_test(): return {"train": (x, np.arange(20)), "test": (x, -np.arange(20))}
    def words(): return np.array([["a"]] * 20), y
    def objects(): return np.array([[None]] * 20), y
    def ragged(): return [[1.0], [1.0, 2.0]] * 10, y
    def times(): return x, np.arange(20).astype("datetime64[s]")
    def complex_numbers(): return x * 1j, y
    def empty(): return x[:0], y[:0]
    def empty_part(): return {"train": (x, y), "test": (x[:0], y[:0])}
    def one_example(): return x[:1], y[:1]
    def no_train(): return {"test": (x, y)}
    def misnamed(): return {"train": (x, y), "valid": (x, y)}
    def nothing(): return None
    def only_x(): return x
    def three(): return x, y, y
    def number(): return 5.0, 3.0
"""
REFUSED = {
    "nan_inputs": "the inputs of the .* part contain NaN or infinite values",
    "nan_targets": "the targets of the .* part contain NaN or infinite values",
    "infinite": "inputs of the .* part contain NaN or infinite values",
    "nan_in_test": "the inputs of the test part contain NaN or infinite values",
    "lengths": "the same length, got 20 and 19",
    "lengths_in_part": "the val part needs as many inputs as targets, and at least one, got 20 and 19",
    "negative": "classes must be at least 0, got -1 in the .* part",
    "negative_in_test": "classes must be at least 0, got -19 in the test part",
    "words": "arrays must contain numbers, got <U1",
    "objects": "arrays must contain numbers, got object",
    "ragged": "arrays must contain numbers: setting an array element with a sequence",
    "times": "arrays must contain numbers, got datetime64",
    "complex_numbers": "arrays must contain numbers, got complex128",
    "empty": "0 examples are too few for a test part of 0.2",
    "empty_part": "the test part needs as many inputs as targets, and at least one, got 0 and 0",
    "one_example": "1 examples are too few for a test part of 0.5",
    "no_train": "expected a mapping with `train`",
    "misnamed": "optionally `val` and `test`, got .*valid",
    "nothing": "expected .x, y. or a mapping .*, got NoneType",
    "only_x": "expected .x, y. or a mapping .*, got ndarray",
    "three": "expected .x, y. or a mapping .*, got tuple",
    "number": "arrays need one row per example, got array.5",
}


@pytest.mark.parametrize("standardize", [False, True], ids=["raw", "standardized"])
@pytest.mark.parametrize("name", REFUSED)
def test_broken_data_are_refused_in_words(tmp_path: Path, name: str, standardize: bool):
    (tmp_path / "broken.py").write_text(textwrap.dedent(BROKEN))
    shares = {"split.val": 0.5, "split.test": 0.5, "split.seed": 0} if name == "one_example" else PARTS
    with pytest.raises(DataProblem, match=REFUSED[name]):
        datasets.load(C(f"./broken.py:{name}", folder=str(tmp_path), standardize=standardize, **shares))


def test_too_little_data_for_the_parts_is_said():
    with pytest.raises(DataProblem, match=r"2 examples are too few for a val part of 0\.5"):
        datasets.load(line(examples=2, **{"split.val": 0.5, "split.test": 0.5}))
