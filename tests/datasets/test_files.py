"""Files of the user's become data: tables, arrays, text; what is wrong with them is said in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from clipbench import datasets, engine
from clipbench.core.trial import Component, Training, Trial
from clipbench.datasets import DataProblem
from clipbench.errors import ClipbenchError
from tests.cli_helpers import invoke, train, write

PARTS = {"split.val": 0.2, "split.test": 0.2, "split.seed": 0}
SHEET = pd.DataFrame(
    {
        "age": np.arange(60) % 37 + 20,
        "weight": np.linspace(50, 90, 60),
        "smokes": np.arange(60) % 3 == 0,
        "city": np.array(["Rome", "Oslo", "Lima"])[np.arange(60) % 3],
        "risk": np.arange(60) * 0.5,
        "ill": np.array(["yes", "no"])[np.arange(60) % 2],
    }
)


@pytest.fixture
def load(tmp_path):
    """Data of files in a folder, as the YAML there would name them."""

    def component(name: str, **options: object) -> Component:
        return Component.of(name, folder=str(tmp_path), **{**PARTS, **options})

    def load(name: str, **options: object) -> datasets.Dataset:
        return datasets.load(component(name, **options))

    load.component = component
    SHEET.to_csv(tmp_path / "sheet.csv", index=False)
    SHEET.to_parquet(tmp_path / "sheet.parquet")
    return load


def everything(loaded: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    parts = [part for part in (loaded.train, loaded.val, loaded.test) if part]
    return tuple(np.concatenate([part[index] for part in parts]) for index in (0, 1))


# Tables


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_a_table_is_numbers_words_and_a_target(load, name):
    loaded = load(name, path=f"sheet.{name}")
    assert loaded.classes and loaded.outputs == 2
    assert loaded.inputs == 4 + 3  # age, weight, smokes, risk, and a column for each city
    x, y = everything(loaded)
    order = np.argsort(x[:, 1])
    np.testing.assert_allclose(x[order][:, [0, 1, 2, 6]], SHEET[["age", "weight", "smokes", "risk"]].to_numpy(float))
    for column, city in zip((3, 4, 5), ("Lima", "Oslo", "Rome"), strict=True):
        np.testing.assert_array_equal(x[order][:, column], SHEET["city"] == city)
    np.testing.assert_array_equal(y[order], SHEET["ill"] == "yes")


def test_targets_are_chosen_by_name(load):
    real = load("csv", path="sheet.csv", target="risk", drop=("ill", "city"))
    assert not real.classes and real.train[1].shape == (36, 1) and real.inputs == 3
    several = load("csv", path="sheet.csv", target=("risk", "weight"), features=("age", "smokes"))
    assert several.outputs == 2 and several.inputs == 2
    cities = load("csv", path="sheet.csv", target="city", features=("age",))
    assert cities.outputs == 3 and cities.inputs == 1


def test_task_says_whether_whole_numbers_are_classes(load, tmp_path):
    sheet = pd.DataFrame({"x": np.arange(50.0), "y": np.arange(50) % 2 * 2 - 1, "big": np.arange(50) * 7})
    sheet.to_csv(tmp_path / "codes.csv", index=False)
    codes = load("csv", path="codes.csv", target="y")
    assert codes.classes and codes.outputs == 2 and set(codes.train[1]) == {0, 1}
    assert not load("csv", path="codes.csv", target="y", task="numbers").classes
    assert (
        load("csv", path="codes.csv", target="big", task="classes", **{"split.test": 0.0, "split.val": 0.0}).outputs
        == 50
    )
    (tmp_path / "many.csv").write_text("x,y\n" + "\n".join(f"{i},{i}" for i in range(200)))
    assert not load("csv", path="many.csv").classes  # 200 different integers are quantities


def test_other_separators_are_read(load, tmp_path):
    SHEET.to_csv(tmp_path / "semi.csv", index=False, sep=";")
    assert load("csv", path="semi.csv", separator=";").fingerprint == load("csv", path="sheet.csv").fingerprint


def test_missing_inputs_are_refused_or_imputed_by_the_training_part(load, tmp_path):
    gone = SHEET.copy()
    gone.loc[::7, "weight"] = np.nan
    gone.loc[3, "city"] = None
    gone.to_csv(tmp_path / "gone.csv", index=False)
    with pytest.raises(DataProblem, match=r"the column 'weight' lacks 9 of 60 values\. Write `impute: mean`"):
        load("csv", path="gone.csv")
    for how, middle in (("mean", np.mean), ("median", np.median)):
        loaded = load("csv", path="gone.csv", impute=how)
        x, _ = everything(loaded)
        there = gone["weight"].iloc[(loaded.train[0][:, -1] * 2).astype(int)].dropna()  # `risk` says which row it was
        filled = gone["weight"].isna().to_numpy()[(x[:, -1] * 2).astype(int)]
        np.testing.assert_allclose(x[filled, 1], middle(there))
        assert filled.sum() == 9
        assert (x[:, 3:6].sum(1) == 0).sum() == 1  # a city that nobody knows is none of them


WRONG = {
    "no target": ({"target": "rsk"}, "target: there is no column 'rsk'. Did you mean 'risk'?"),
    "no such feature": ({"features": ("agge",)}, "features: there is no column 'agge'. Did you mean 'age'"),
    "far off": ({"drop": ("zzz",)}, "Columns: age, weight, smokes, city, risk, ill"),
    "nothing left": ({"features": ("ill",)}, "there are no input columns left"),
    "words as numbers": ({"task": "numbers"}, "the target has values that are not numbers"),
    "words among several": (
        {"target": ("risk", "ill")},
        "the target 'ill' contains text, but several targets must be numbers",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_columns_are_said(load, name):
    options, expected = WRONG[name]
    with pytest.raises(DataProblem) as caught:
        load("csv", path="sheet.csv", **options)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "content, expected",
    [
        ("", "is not a CSV file"),
        ("a,b\n", "the table has no rows"),
        ("a,b\n1,2,3\n4,5\n1,2,3,4\n", "is not a CSV file"),
        ("a,b\n1,\n2,1\n", "1 of 2 examples have no target"),
        (
            "name,b\n" + "\n".join(f"n{i},{i % 2}" for i in range(60)),
            "the column 'name' has 60 distinct text values, such as 'n0'",
        ),
        ("a,b\n" + "\n".join(f"{i},n{i}" for i in range(120)), "has 120 distinct text values, more than 100"),
    ],
)
def test_broken_tables_are_said(load, tmp_path, content, expected):
    (tmp_path / "broken.csv").write_text(content)
    with pytest.raises(DataProblem, match=expected):
        load("csv", path="broken.csv")


def test_what_is_no_file_of_its_kind_is_said(load, tmp_path):
    (tmp_path / "odd").write_bytes(b"\xff\xfe\x00 nothing of the kind")
    for name, expected in (("csv", "a CSV"), ("parquet", "a Parquet"), ("npz", "an .npz"), ("text", "a UTF-8 text")):
        with pytest.raises(DataProblem, match=f"is not {expected} file"):
            load(name, path="odd")


def test_a_users_function_may_return_a_table(tmp_path):
    (tmp_path / "own.py").write_text(
        "import pandas as pd\n"
        "def sheet():\n"
        "    frame = pd.DataFrame({'a': range(40), 'c': list('xyzw') * 10})\n"
        "    return frame, frame['c']\n"
    )
    loaded = datasets.load(Component.of("./own.py:sheet", folder=str(tmp_path), **PARTS))
    assert loaded.inputs == 5 and loaded.outputs == 4


# Arrays


def images(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape)).astype(np.uint8)


@pytest.mark.parametrize(
    "shape, expected", [((28, 28), (1, 28, 28)), ((28, 28, 3), (3, 28, 28)), ((3, 28, 28), (3, 28, 28))]
)
def test_the_layout_of_medmnist_is_read(load, tmp_path, shape, expected):
    parts = {"train": 30, "val": 10, "test": 12}
    arrays = {f"{part}_images": images(size, *shape) for part, size in parts.items()}
    arrays |= {f"{part}_labels": np.arange(size)[:, None].astype(np.uint8) % 5 for part, size in parts.items()}
    np.savez(tmp_path / "med.npz", **arrays)
    loaded = load("npz", path="med.npz")
    assert loaded.inputs == expected and loaded.outputs == 5 and loaded.classes
    assert [len(part[0]) for part in (loaded.train, loaded.val, loaded.test)] == [30, 10, 12]
    assert loaded.train[0].min() >= 0 and loaded.train[0].max() <= 1
    source = arrays["val_images"] / 255
    source = source[:, None] if len(shape) == 2 else source.transpose(0, 3, 1, 2) if shape[2] == 3 else source
    np.testing.assert_allclose(loaded.val[0], source, atol=1e-6)
    np.testing.assert_array_equal(loaded.val[1], np.arange(10) % 5)
    assert load("npz", path="med.npz", flat=True).inputs == np.prod(shape)
    if shape == (28, 28):
        assert load("npz", path="med.npz", resize=36).inputs == (1, 36, 36)


def test_labels_of_medmnist_that_are_several_are_targets_of_their_own(load, tmp_path):
    y = np.random.default_rng(0).integers(0, 2, (20, 14)).astype(np.uint8)
    np.savez(tmp_path / "chest.npz", train_images=images(20, 4, 4), train_labels=y)
    loaded = load("npz", path="chest.npz")
    assert not loaded.classes and loaded.outputs == 14


def test_a_missing_val_part_is_taken_from_the_training_part(load, tmp_path):
    y = np.arange(50) % 2
    np.savez(tmp_path / "keras.npz", x_train=images(50, 8, 8), y_train=y, x_test=images(20, 8, 8), y_test=y[:20])
    loaded = load("npz", path="keras.npz")
    assert [len(part[0]) for part in (loaded.train, loaded.val, loaded.test)] == [40, 10, 20]
    assert loaded.val[1].mean() == 0.5
    assert load("npz", path="keras.npz", **{"split.val": 0.0}).val is None


def test_plain_arrays_are_split_like_any_other_data(load, tmp_path):
    np.savez(tmp_path / "plain.npz", a=np.arange(100.0).reshape(50, 2), b=np.arange(50) % 2, extra=np.zeros(3))
    loaded = load("npz", path="plain.npz", inputs="a", targets="b")
    assert [len(part[0]) for part in (loaded.train, loaded.val, loaded.test)] == [30, 10, 10]
    with pytest.raises(DataProblem, match="has a, b, extra, but neither x and y nor train_images"):
        load("npz", path="plain.npz")
    np.savez(tmp_path / "evil.npz", x=np.array([{"a": 1}], dtype=object), y=np.zeros(1))
    with pytest.raises(DataProblem, match="plain arrays"):
        load("npz", path="evil.npz")


# Text


def test_text_is_cut_in_order_and_each_character_is_the_target_of_those_before(load, tmp_path):
    content = "".join(chr(97 + (i * i) % 7) for i in range(1000)) + "ZZ"
    (tmp_path / "book.txt").write_text(content)
    loaded = load("text", path="book.txt", length=20)
    vocabulary = sorted(set(content[:601]))

    def read(part):
        codes = np.concatenate([part[0].reshape(-1), part[1][-1:, -1]])
        np.testing.assert_array_equal(part[0].reshape(-1)[1:], part[1].reshape(-1)[:-1])
        return "".join([*vocabulary, "?"][code] for code in codes)

    assert content.startswith(read(loaded.train))
    assert read(loaded.val) in content[601:802] and read(loaded.test) in content[802:].replace("Z", "?")
    assert loaded.train[0].shape == (30, 20) and loaded.train[0].dtype == np.int64
    assert len(loaded.val[0]) + len(loaded.test[0]) == 19


def test_without_a_path_text_is_the_help_of_python(load):
    loaded = load("text", length=64)
    assert len(loaded.train[0]) == (60000 - 1) // 64 and 60 < loaded.outputs < 200
    assert len(load("text", length=64, characters=None).train[0]) > 3000
    assert load("text", length=64, limit=100).train[0].shape == (100, 64)


def test_a_text_that_is_too_short_is_said(load, tmp_path):
    (tmp_path / "short.txt").write_text("hello world " * 10)
    with pytest.raises(DataProblem, match="the val part has 24 characters, too few for a window of 64"):
        load("text", path="short.txt", length=64)
    assert load("text", path="short.txt", length=64, **{"split.val": 0.0, "split.test": 0.0}).val is None


# From the YAML


def test_paths_are_seen_from_the_yaml_and_the_copy_of_it_finds_them_too(tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    SHEET.to_csv(tmp_path / "study" / "sheet.csv", index=False)
    data = {"name": "csv", "path": "./sheet.csv", "standardize": True}
    path = write(tmp_path / "study", data=data, clip="none", seeds=2)
    monkeypatch.chdir("/")
    train(path, tmp_path / "results")
    records = pd.read_parquet(tmp_path / "results" / "small" / "records")
    assert set(records["data.path"]) == {"./sheet.csv"}
    said = invoke("run", tmp_path / "results/small/experiment.yaml", "--results", tmp_path / "results", "--no-mlflow")
    assert said.exit_code == 0, said.stderr
    assert len(pd.read_parquet(tmp_path / "results" / "small" / "records")) == 2


@pytest.mark.parametrize("command", [("check",), ("run", "--dry-run", "--no-mlflow")])
def test_a_file_that_is_not_there_is_said_with_its_place(tmp_path, command):
    SHEET.to_csv(tmp_path / "sheet.csv", index=False)
    path = write(tmp_path, data={"name": "csv", "path": "shet.csv"})
    said = invoke(command[0], path, *command[1:])
    assert said.exit_code == 2
    assert "data.path: there is no file" in said.stderr + said.stdout and "sheet.csv" in said.stderr + said.stdout


def test_an_edited_file_makes_new_trials_and_never_the_old_ones_name(load, tmp_path):
    old = load("csv", path="sheet.csv")
    (SHEET.assign(weight=1.0)).to_csv(tmp_path / "sheet.csv", index=False)
    new = load("csv", path="sheet.csv")
    assert old.fingerprint != new.fingerprint
    train = Training(epochs=1, loss=Component.of("cross_entropy"))
    component = load.component("csv", path="sheet.csv")
    trial = Trial(
        component, Component.of("linear"), Component.of("sgd"), train, Component.of("none"), 0, old.fingerprint
    )
    with pytest.raises(ClipbenchError, match="csv: the data have changed since the experiment was planned"):
        engine.train([trial])


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("layout", ["one part", "parts", "numbers"])
def test_a_folder_of_npy_files_is_as_an_npz_file_in_memory_or_mapped(load, tmp_path, monkeypatch, layout, flat):
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, 50)
    x = draw.standard_normal((50, 4)) if layout == "numbers" else draw.integers(0, 255, (50, 6, 6, 3)).astype(np.uint8)
    arrays = {"x_train": x, "y_train": y, "x_test": x[:20], "y_test": y[:20]} if layout == "parts" else {"x": x, "y": y}
    (tmp_path / "arrays").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / "arrays" / f"{name}.npy", array)
    np.savez(tmp_path / "arrays.npz", **arrays)
    whole, folder = (datasets.read(load.component("npz", path=path, flat=flat)) for path in ("arrays.npz", "arrays"))
    assert whole.fingerprint == folder.fingerprint and folder.in_memory
    monkeypatch.setattr("clipbench.datasets.read_options.MOST_BYTES", whole.train[0].nbytes)
    mapped = datasets.read(load.component("npz", path="arrays", flat=flat))
    assert not mapped.in_memory and mapped.examples == whole.examples
    for name in ("train", "val", "test"):
        for one, other in zip(getattr(whole, name), getattr(mapped, name), strict=True):
            np.testing.assert_array_equal(one, other)
