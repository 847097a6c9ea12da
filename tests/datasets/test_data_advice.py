"""Advice about data: what is probably wrong, with what to write; and everything wrong with a table at once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from clipbench import datasets
from clipbench.core.trial import Component
from clipbench.datasets import DataProblem, Dataset, advice
from tests.cli_helpers import invoke

RNG = np.random.default_rng(0)
ROWS = 300


def table(**columns):
    """A table without faults, and columns added or replaced."""
    sound = {
        "age": RNG.integers(18, 80, ROWS),
        "city": RNG.choice(["Rome", "Oslo"], ROWS),
        "size": RNG.normal(size=ROWS),
    }
    return pd.DataFrame({**sound, **columns, "churned": RNG.integers(0, 2, ROWS)} | columns)


@pytest.fixture
def load(tmp_path):
    def load(frame, **options):
        frame.to_csv(tmp_path / "churn.csv", index=False)
        given = {"path": "churn.csv", "target": "churned", "split.val": 0.2, "split.test": 0.2, "split.seed": 0}
        return datasets.read(Component.of("csv", folder=str(tmp_path), **given, **options))

    return load


def said(dataset, standardized=False):
    return list(advice(dataset, standardized))


def test_of_a_sound_table_nothing_is_said(load):
    assert said(load(table())) == []


def test_a_column_that_numbers_the_rows_is_named(load):
    for numbers in (np.arange(ROWS), RNG.permutation(ROWS) * 7 + 1000):
        for standardize in (False, True):
            loaded = load(table(customer_id=numbers), standardize=standardize)
            assert "the column 'customer_id' numbers the rows. Write `drop: [customer_id]`." in said(
                loaded, standardize
            )


def test_a_column_that_tells_the_target_is_named(load):
    frame = table()
    frame["left"] = np.where(frame["churned"] == 1, "yes", "no")
    assert said(load(frame)) == ["the column 'left' tells the target. Write `drop: [left]`."]


def test_parts_that_are_too_small_for_the_margin_are_named(load):
    small = load(table())
    assert list(advice(small, False, margin=0.02)) == []
    assert list(advice(small, False, margin=0.005)) == [
        f"the {part} part has 60 examples, so its accuracy moves in steps of 1.7 pp, more than the margin of ±0.5 pp. "
        "Use a larger part or a wider margin."
        for part in ("val", "test")
    ]


def test_margin_in_percentage_points_is_noticed(load):
    assert list(advice(load(table()), False, margin=0.5)) == [
        "a margin of 0.5 is ±50 pp of accuracy. Write 0.005 for 0.5 pp."
    ]


def test_scales_that_differ_a_thousand_times_are_named_with_their_columns(load):
    frame = table(income=RNG.normal(40_000, 9_000, ROWS), rate=RNG.uniform(0, 0.01, ROWS))
    (text,) = said(load(frame))
    assert text.startswith("the standard deviations of the inputs reach from 0.")
    assert text.endswith("('income'). Write `standardize: true`.")
    assert said(load(frame, standardize=True), standardized=True) == []


def test_dark_corners_of_images_are_no_scales():
    images = RNG.random((200, 64))
    images[:, :10] *= 1e-4
    classes = RNG.integers(0, 2, 200)
    assert said(Dataset((images, classes), None, None, "f")) == []


def test_targets_of_large_scale(load):
    (text,) = said(load(table(churned=RNG.normal(0, 5000, ROWS))))
    assert text.endswith("e+03. Write `standardize: true`.")


def test_repeated_rows_and_a_class_that_is_nearly_everything(load):
    frame = table()
    (val, test) = said(load(pd.concat([frame, frame])))
    assert " % of the val inputs are in the training part too" in val and "test results say little" in test
    (text,) = said(load(table(churned=(np.arange(ROWS) < 9).astype(int))))
    assert text.startswith("97 % of the examples have the same class") or text.startswith("96 %")


def test_everything_wrong_with_a_table_is_said_at_once(load):
    frame = table(name=[f"n{row}" for row in range(ROWS)], note=[f"x{row % 70}" for row in range(ROWS)])
    frame["age"] = frame["age"].where(frame.index > 6)
    frame.loc[4, "size"] = np.inf
    frame["churned"] = frame["churned"].where(frame.index > 1)
    with pytest.raises(DataProblem) as found:
        load(frame)
    assert found.value.texts == (
        "the column 'age' lacks 7 of 300 values. Write `impute: mean`.",
        "the column 'size' has 1 infinite values. Replace them, or leave it out.",
        "the column 'name' has 300 distinct text values, such as 'n0'. Write `drop: [name]`.",
        "the column 'note' has 70 distinct text values, such as 'x0'. Write `drop: [note]`.",
        "2 of 300 examples have no target. Remove these rows.",
    )


def test_check_reads_the_data_and_no_data_leaves_them_out(tmp_path):
    frame = table(name=[f"n{row}" for row in range(ROWS)])
    frame["age"] = frame["age"].where(frame.index > 6)
    frame.to_csv(tmp_path / "churn.csv", index=False)
    path = tmp_path / "churn.yaml"
    path.write_text(
        "data: {name: csv, path: churn.csv, target: churned}\nmodel: mlp\noptimizer: sgd\n"
        "clip: [none, {name: norm, threshold: 1}]\ntrain: {epochs: 1}\n"
    )
    wrong = invoke("check", path)
    assert wrong.exit_code == 2 and wrong.stderr.count(f"{path}:1:7: data: csv cannot be loaded: the column") == 2
    assert invoke("check", path, "--no-data").exit_code == 0
    path.write_text(path.read_text().replace("target: churned", "target: churned, drop: [name], impute: mean"))
    assert invoke("check", path).exit_code == 0
    assert {entry.name for entry in tmp_path.iterdir()} == {"churn.csv", "churn.yaml"}, "nothing is written"
