"""Damage is done to the training part alone; folds are each the test part in turn; images fit their network."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clipbench import datasets
from clipbench.core.trial import Component
from clipbench.datasets import DataProblem
from tests.cli_helpers import invoke, train, write

C = Component.of
PARTS = {"split.val": 0.2, "split.test": 0.2, "split.seed": 0}
CLEAN = {f"corrupt.{kind}": 0.0 for kind in ("missing", "label_flip", "outliers", "noise")}


def line(**damage: object) -> datasets.Dataset:
    damage = {f"corrupt.{name}": value for name, value in damage.items()}
    return datasets.load(C("tests.toys:line", examples=1000, features=4, **{**PARTS, **CLEAN, **damage}))


def digits(name: str = "digits", **options: object) -> datasets.Dataset:
    return datasets.load(C(name, **{**PARTS, **options}))


# Damage


@pytest.mark.parametrize("kind", ["missing", "outliers", "noise"])
def test_validation_and_test_stay_clean(kind):
    clean, damaged = line(), line(**{kind: 0.3})
    for name in ("val", "test"):
        for one, other in zip(getattr(clean, name), getattr(damaged, name), strict=True):
            np.testing.assert_array_equal(one, other)
    assert (clean.train[0] != damaged.train[0]).any()
    assert clean.fingerprint != damaged.fingerprint
    assert np.isfinite(damaged.train[0]).all()


def test_labels_are_flipped_to_another_class_with_the_probability_asked_for():
    clean = digits(**{"corrupt.label_flip": 0.0})
    damaged = digits(**{"corrupt.label_flip": 0.3})
    true, lies = clean.train[1], damaged.train[1]
    assert (true != lies).mean() == pytest.approx(0.3, abs=0.04)
    assert set(np.unique(lies)) == set(range(10)) and lies.dtype == true.dtype
    steps = (lies - true)[lies != true] % 10
    np.testing.assert_allclose(np.bincount(steps)[1:] / len(steps), 1 / 9, atol=0.04)
    np.testing.assert_array_equal(clean.train[0], damaged.train[0])
    np.testing.assert_array_equal(clean.test[1], damaged.test[1])
    everything = digits("breast_cancer", **{"corrupt.label_flip": 1.0}).train[1]
    np.testing.assert_array_equal(everything, 1 - digits("breast_cancer").train[1])


def test_labels_of_0_and_1_are_flipped_one_by_one():
    clean, damaged = (digits("multilabel", **{"corrupt.label_flip": share}).train[1] for share in (0.0, 0.25))
    assert (clean != damaged).mean() == pytest.approx(0.25, abs=0.03)
    assert set(np.unique(damaged)) == {0.0, 1.0}


def test_what_is_missing_becomes_the_mean_of_what_is_left_of_its_column():
    clean, damaged = line().train[0], line(missing=0.3).train[0]
    for column, gone in zip(range(4), (clean != damaged).T, strict=True):
        assert gone.mean() == pytest.approx(0.3, abs=0.06)
        np.testing.assert_allclose(damaged[gone, column], clean[~gone, column].mean())


def test_outliers_lie_ten_standard_deviations_away_in_inputs_and_real_targets():
    clean, damaged = line(), line(outliers=0.1)
    for one, other in zip(clean.train, damaged.train, strict=True):
        moved = one != other
        assert moved.mean() == pytest.approx(0.1, abs=0.04)
        away = ((other - one) / one.std(0))[moved]
        np.testing.assert_allclose(np.abs(away), 10)
        assert (away > 0).mean() == pytest.approx(0.5, abs=0.15)


def test_noise_is_measured_in_standard_deviations_of_its_column():
    added = line(noise=0.5).train[0] - line().train[0]
    np.testing.assert_allclose(added.std(0), 0.5 * line().train[0].std(0), rtol=0.1)
    np.testing.assert_array_equal(line(noise=0.5).train[1], line().train[1])


@pytest.mark.parametrize("kind", ["missing", "outliers"])
def test_more_damage_holds_all_of_the_lesser(kind):
    clean, little, much = (line(**{kind: share}).train[0] for share in (0.0, 0.1, 0.4))
    assert ((little != clean) <= (much != clean)).all()
    assert ((much != clean) > (little != clean)).any()


def test_damage_has_a_seed_of_its_own_and_kinds_do_not_move_one_another():
    assert (
        line(noise=0.1).fingerprint
        == datasets.read(C("tests.toys:line", examples=1000, features=4, **{**PARTS, "corrupt.noise": 0.1})).fingerprint
    )
    assert line(noise=0.1).fingerprint != line(noise=0.1, seed=1).fingerprint
    only, both = line(missing=0.2).train[0], line(missing=0.2, noise=0.01).train[0]
    gone = only != line().train[0]
    for column in range(4):
        assert len(set(both[gone[:, column], column])) == 1  # the same places, with the mean of what is left


def test_scaling_sees_the_damaged_records_and_not_the_clean_ones():
    loaded = datasets.load(C("tests.toys:line", examples=1000, **PARTS, standardize=True, **{"corrupt.outliers": 0.05}))
    np.testing.assert_allclose(loaded.train[0].std(0), 1)
    assert loaded.test[0].std() < 0.7


@pytest.mark.parametrize(
    "component, expected",
    [
        (
            C("tests.toys:line", **PARTS, **{"corrupt.label_flip": 0.1}),
            "label_flip requires classes, but the targets are real numbers",
        ),
        (C("tests.toys:tokens", **PARTS, **{"corrupt.noise": 0.1}), "the inputs are integers"),
    ],
)
def test_damage_that_cannot_be_done_is_refused_in_words(component, expected):
    with pytest.raises(DataProblem, match=expected):
        datasets.load(component)


# Folds


def folds(name: str = "digits", k: int = 5, **options: object) -> list[datasets.Dataset]:
    return [datasets.load(C(name, **{**PARTS, **options, "folds": k, "fold": fold})) for fold in range(k)]


def test_every_example_is_tested_in_one_fold():
    found = folds("breast_cancer")
    tested = [row.tobytes() for each in found for row in each.test[0]]
    whole = digits("breast_cancer")
    assert sorted(tested) == sorted(row.tobytes() for part in (whole.train, whole.val, whole.test) for row in part[0])
    for each in found:
        parts = [{row.tobytes() for row in part[0]} for part in (each.train, each.val, each.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 569
        assert len(each.val[0]) == 114 and len(each.test[0]) in (113, 114)
        np.testing.assert_allclose([each.test[1].mean(), each.val[1].mean()], 0.627, atol=0.01)
    assert len({each.fingerprint for each in found}) == 5


def test_folds_of_real_targets_and_of_rare_classes_are_plain_ones():
    assert sum(len(each.test[0]) for each in folds("diabetes", 3)) == 442
    rare = folds("tests.toys:classes", 5, counts=(30, 3))
    assert sum(len(each.test[0]) for each in rare) == 33


def test_folds_are_refused_where_they_make_no_sense():
    with pytest.raises(DataProblem, match="that come in parts"):
        folds("label_noise")
    with pytest.raises(DataProblem, match="4 examples are too few for 5 folds"):
        folds("tests.toys:line", examples=4)


def test_folds_are_an_axis_and_averaged_within_their_seed(tmp_path):
    data = {"name": "wine", "folds": 3, "split": {"val": 0.2}}
    path = write(tmp_path, data=data, clip=["none", {"name": "norm", "threshold": 0.1}], seeds=6)
    said = train(path, tmp_path / "results").output
    records = pd.read_parquet(tmp_path / "results" / "small" / "records")
    assert records.groupby(["data.folds", "data.fold"]).size().to_dict() == {(3, 0): 12, (3, 1): 12, (3, 2): 12}
    assert "Trials of the same arm and seed (folds) are averaged first." in said.replace("\n", " ") and "0 of 6" in said
    table = pd.read_csv(tmp_path / "results" / "small" / "table.csv")
    means = records.groupby(["arm", "seed"])["test/accuracy"].mean().groupby("arm").mean()
    assert len(table) == 2
    np.testing.assert_allclose(table.set_index("arm")["mean"].sort_index(), means.sort_index())
    again = tmp_path / "results" / "small" / "experiment.yaml"
    assert "36 trials" in invoke("check", again).output.replace("\n", " ")


# Images


def test_images_are_resized_as_pillow_does_it():
    x = digits().train[0]
    for size in (4, 8, 28, 36):
        resized = digits(resize=size).train[0]
        assert resized.shape == (len(x), size * size)
        for index in range(5):
            image = Image.fromarray(x[index].reshape(8, 8).astype(np.float32))
            expected = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(resized[index].reshape(size, size), expected, atol=1e-5)
    assert digits(resize=28).train[0].min() >= 0 and digits(resize=28).train[0].max() <= 1


@pytest.mark.parametrize("shape, expected", [((16,), (49,)), ((4, 4), (7, 7)), ((3, 4, 5), (3, 7, 7))])
def test_every_layout_of_images_keeps_its_layout(shape, expected):
    loaded = datasets.load(C("tests.toys:blank", shape=shape, value=0.25, resize=7, **PARTS))
    assert loaded.train[0].shape[1:] == expected
    np.testing.assert_allclose(loaded.test[0], 0.25)


@pytest.mark.parametrize("shape", [(15,), (2, 3, 4, 5)])
def test_what_is_no_image_is_not_resized(shape):
    with pytest.raises(DataProblem, match="only images can be resized"):
        datasets.load(C("tests.toys:blank", shape=shape, resize=7, **PARTS))


# From the YAML


@pytest.mark.parametrize(
    "data, expected",
    [
        ({"folds": [3, 5]}, "data.folds: folds must be a single number"),
        ({"folds": 1}, "data.folds: "),
        ({"split": {"seed": 2**32}}, "data.split.seed: "),
        ({"fold": 1}, "data.fold: fold requires folds"),
        ({"folds": 3, "fold": 3}, "data.fold: fold must be at most 2, got 3"),
        ({"folds": 2, "split": {"val": 0.5}}, "must sum to less than 1, got 1"),
        ({"corrupt": 0.1}, "Write corrupt: {missing: 0.1}"),
        ({"corrupt": {"mising": 0.1}}, "Did you mean `corrupt.missing`"),
        ({"corrupt": {"missing": 1.0}}, "data.corrupt.missing: "),
        ({"corrupt": {"noise": -1}}, "data.corrupt.noise: "),
        ({"resize": 0}, "data.resize: "),
    ],
)
def test_wrong_options_are_said_with_their_place(tmp_path, data, expected):
    said = invoke("check", write(tmp_path, data={"name": "digits", **data}))
    assert said.exit_code == 2
    assert expected in said.output


def test_damage_is_an_axis_like_any_other(tmp_path):
    data = {"name": "wine", "corrupt": {"label_flip": [0.0, 0.4], "seed": 3}}
    path = write(tmp_path, data=data, train={"epochs": 30, "batch_size": 32}, clip="none", seeds=4)
    train(path, tmp_path / "results")
    records = pd.read_parquet(tmp_path / "results" / "small" / "records")
    means = records.groupby("data.corrupt.label_flip")[["train/accuracy", "test/accuracy"]].mean()
    assert means.loc[0.0, "train/accuracy"] > 0.9 > 0.8 > means.loc[0.4, "train/accuracy"]
    assert means.loc[0.4, "test/accuracy"] > means.loc[0.4, "train/accuracy"]
