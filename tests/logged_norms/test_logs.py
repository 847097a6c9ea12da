"""Logs of every kind as real files: what is read of them, and what is said of what cannot be read."""

import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipbench.errors import InputError
from clipbench.logged_norms import read_norms
from clipbench.logged_norms.norm_log import plateau

NORMS = np.exp(np.random.default_rng(0).normal(size=40)).round(6)
STEPS = np.arange(10, 410, 10)


def no_uri():
    raise AssertionError("MLflow is not asked")


def read(source, *wanted, results="results", **options):
    return read_norms(str(source), wanted, results, no_uri, **options)


def frame(**changes):
    columns = {"step": STEPS, "loss": 1 / STEPS, "train/grad_norm": NORMS}
    return pd.DataFrame(columns | changes)


def written(folder, kind):
    """The same norms in a file of a kind; its name says nothing."""
    path = folder / f"log-{kind.split()[0]}"
    if kind == "parquet":
        frame().to_parquet(path)
    elif kind == "JSON lines":
        frame().to_json(path, orient="records", lines=True)
    elif kind in ("records", "list"):
        frame().to_json(path, orient={"records": "records", "list": "split"}[kind])
        if kind == "list":
            path.write_text(json.dumps(frame().to_dict("list")))
    elif kind == "trainer":
        log = [{"step": int(s), "loss": 0.5, "grad_norm": n} for s, n in zip(STEPS, NORMS, strict=True)]
        log[3:3] = [{"step": 30, "eval_loss": 0.4}]
        path.write_text(json.dumps({"global_step": 400, "log_history": [*log, {"step": 400, "train_runtime": 3.0}]}))
    else:
        path.write_text(
            frame().to_csv(index=False, sep={"csv": ",", "tsv": "\t", "semicolon": ";", "words": " "}[kind])
        )
    return path


@pytest.mark.parametrize(
    "kind", ["csv", "tsv", "semicolon", "words", "parquet", "JSON lines", "records", "list", "trainer"]
)
def test_a_file_is_known_by_its_content(tmp_path, kind):
    [norms] = read(written(tmp_path, kind))
    [training] = norms.trainings
    np.testing.assert_allclose(training[:, 0], NORMS)
    assert (norms.first, norms.last, norms.every, norms.nonfinite) == (10, 400, 10, 0)
    assert norms.columns == ("grad_norm" if kind == "trainer" else "train/grad_norm",)


def test_a_column_without_a_header_is_enough(tmp_path):
    np.savetxt(tmp_path / "norms.txt", NORMS)
    [norms] = read(tmp_path / "norms.txt")
    np.testing.assert_allclose(norms.whole, NORMS)
    assert norms.first is None and norms.every == 1


def test_empty_cells_are_not_norms_and_what_is_not_finite_is_counted(tmp_path):
    rows = ["step,grad_norm,val_loss", "1,0.5,", "1,,0.3", "2,nan,", "3,inf,", "4,0.25,", "4,,0.2", "5,-inf,"]
    (tmp_path / "m.csv").write_text("\n".join(rows))
    [norms] = read(tmp_path / "m.csv")
    assert norms.whole.tolist() == [0.5, 0.25] and norms.nonfinite == 3
    assert (norms.first, norms.last, norms.every) == (1, 5, 1)


def test_missing_cells_of_parquet_are_not_norms_and_nan_is_counted(tmp_path):
    norms = pa.array([*NORMS[:-2], None, math.nan], from_pandas=False)
    pq.write_table(pa.table({"step": STEPS, "grad_norm": norms}), tmp_path / "m.parquet")
    [found] = read(tmp_path / "m.parquet")
    assert found.steps == 38 and found.nonfinite == 1


def test_a_step_that_falls_begins_another_training(tmp_path):
    pd.concat([frame(), frame()[:10]]).to_csv(tmp_path / "two.csv", index=False)
    [norms] = read(tmp_path / "two.csv")
    assert [len(each) for each in norms.trainings] == [40, 10]


def test_several_columns_are_settings_or_the_tensors_of_one_model(tmp_path):
    frame(**{"grad/a": NORMS, "grad/b": 2 * NORMS}).to_csv(tmp_path / "t.csv", index=False)
    one, other = read(tmp_path / "t.csv", "grad/a", "grad/b")
    assert one.columns == ("grad/a",) and np.allclose(other.whole, 2 * NORMS)
    [model] = read(tmp_path / "t.csv", "grad/*", of_tensors=True)
    assert model.columns == ("grad/a", "grad/b")
    np.testing.assert_allclose(model.whole, np.sqrt(5) * NORMS)


def test_columns_of_different_steps_have_no_common_norm(tmp_path):
    frame(a=[*NORMS[:-1], np.nan]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match=r"not logged at the same steps"):
        read(tmp_path / "t.csv", "a", "train/grad_norm", of_tensors=True)


def test_the_newest_checkpoint_of_a_trainer_is_read(tmp_path):
    for step in (5, 10, 100):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        log = [{"step": at, "grad_norm": 1.0} for at in range(1, step + 1)]
        (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    [norms] = read(tmp_path)
    assert norms.steps == 100 and "checkpoint-100" in norms.source


def test_a_folder_with_one_table_is_enough(tmp_path):
    frame().to_csv(tmp_path / "metrics.csv", index=False)
    (tmp_path / "hparams.yaml").write_text("lr: 1")
    assert read(tmp_path)[0].steps == 40
    frame().to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(InputError, match=r"has 2 tables: metrics.csv, other.csv. Name one of them"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "wanted", "expected"),
    [
        ("", (), "the file is empty"),
        (" \n\n", (), "the file is empty"),
        ("step,grad_norm\n", (), "there is no column of numbers"),
        ("# only a comment\n", (), "the file has no rows"),
        ("step,grad_norm\n1,\n2,\n", (), "there is no column of numbers"),
        ("step,grad_norm\n1,nan\n2,nan\n", (), "none of the 2 norms is finite"),
        ("step,grad_norm\n1,0.5\n2,high\n", (), "grad_norm: expected numbers, got 'high'."),
        ("step,grad_norm,note\n1,0.5,ok\n", ("note",), "there is no column of numbers 'note'. Known: grad_norm."),
        ("step,grad_norm\n1,-0.5\n", (), "norms cannot be negative"),
        ('{"step": 1, "grad_norm": 1}\nnot json', (), ":2:1: expected a JSON object, got 'not json'."),
        ("[1, 2]", (), "expected a list of objects, or a list for each column"),
        ('{"a": [1], "b": [1, 2]}', (), "not equally long"),
        ('{"log_history": []}', (), "the Trainer has logged nothing yet"),
        (b"\x89PNG\x00\x01", (), "is no log that is known. Expected a table"),
        (
            b"SQLite format 3\0 and so on",
            (),
            "is a database. Name one of its runs: `--from ID --tracking-uri sqlite:///",
        ),
        (b"PAR1 and no more", (), "cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, content, wanted, expected):
    path = tmp_path / "log"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read(path, *wanted)
    assert expected in str(caught.value)


def test_other_things_are_refused_with_what_is_near(tmp_path):
    (tmp_path / "norms.csv").write_text("grad_norm\n1\n")
    (tmp_path / "e.yaml").write_text("model: mlp\n")
    (tmp_path / "empty").mkdir()
    for name, expected in (
        ("norm.csv", "there is no such file, folder or run. Expected a table"),
        ("norm.csv", "Did you mean `norms.csv`?"),
        ("e.yaml", "is an experiment, not a log. Train it: `clipbench pilot"),
        ("empty", "has no log that is known"),
    ):
        with pytest.raises(InputError) as caught:
            read(tmp_path / name)
        assert expected in str(caught.value)


def test_norms_after_clipping_are_known_by_their_plateau():
    norms = np.exp(np.random.default_rng(1).normal(size=1000))
    assert plateau(norms) is None
    for threshold in (0.5, 1.0, 3.0, 8.0):
        clipped = norms * np.minimum(1, threshold / (norms + 1e-6))
        assert plateau(clipped) == pytest.approx(threshold, rel=1e-3)
    assert plateau(norms[:3]) is None
    assert plateau(np.linspace(0, 1, 5000)) is None
