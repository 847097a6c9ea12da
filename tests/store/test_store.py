"""The store: whole files or none, rows by id, readable with pandas alone."""

import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipbench.core.records import Records
from clipbench.errors import ClipbenchError
from clipbench.store.atomic_files import write_atomically
from clipbench.store.folder import Store
from tests.fake_records import chunk, series, trial


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "an experiment")


def test_an_empty_store_has_nothing_done_and_empty_tables(store):
    assert store.done() == set()
    assert list(store.records().columns) == ["id", "status"]
    assert list(store.epochs().columns) == ["id", "arm", "seed", "epoch"]
    assert list(store.steps().columns) == ["id", "arm", "seed", "step"]
    assert list(store.steps(columns=["grad_norm/pre"]).columns) == ["id", "step", "grad_norm/pre"]
    assert not store.folder.exists()


def test_what_is_saved_is_read_back(store):
    trials = [trial(seed) for seed in range(3)]
    store.save(chunk(trials), "digits-1")
    records, ids = store.records(), [one.id for one in trials]
    assert list(records["id"]) == ids
    assert list(records["seed"]) == [0, 1, 2]
    assert list(records["model.hidden"]) == ["[128]"] * 3
    assert records["diverged_step"].isna().all()
    assert store.done() == set(ids)
    assert store.stems() == {"digits-1": ids}
    assert len(store.epochs()) == 9 and len(store.steps()) == 36
    assert store.steps()["grad_norm/pre"].dtype == np.float32


def test_readers_select_trials_and_columns(store):
    trials = [trial(seed) for seed in range(3)]
    store.save(chunk(trials), "digits-1")
    wanted = {trials[1].id}
    assert set(store.records(wanted)["id"]) == wanted
    assert set(store.epochs(wanted)["id"]) == wanted
    steps = store.steps(wanted, ["grad_norm/pre"])
    assert list(steps.columns) == ["id", "step", "grad_norm/pre"] and set(steps["id"]) == wanted


def arms_and_seeds(frame):
    return set(frame[["id", "arm", "seed"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("table", ["epochs", "steps"])
def test_series_name_the_arm_and_the_seed_of_each_trial(store, table):
    trials = [trial(seed) for seed in (3, 0, 7)]
    store.save(chunk(trials), "digits-1")
    expected = {(one.id, "norm@1.0", one.seed) for one in trials}
    assert arms_and_seeds(getattr(store, table)()) == expected
    assert arms_and_seeds(pd.read_parquet(store.folder / table)) == expected, "with pandas alone"


@pytest.mark.parametrize("table", ["epochs", "steps"])
def test_series_of_older_files_take_the_arm_and_the_seed_from_the_records(store, table):
    trials = [trial(seed) for seed in (3, 0)]
    store.save(chunk(trials), "digits-1")
    path = store.folder / table / "digits-1.parquet"
    pd.read_parquet(path).drop(columns=["arm", "seed"]).to_parquet(path, index=False)
    frame = getattr(store, table)()
    assert list(frame.columns)[:4] == ["id", "arm", "seed", table.removesuffix("s")]
    assert arms_and_seeds(frame) == {(one.id, "norm@1.0", one.seed) for one in trials}


def test_pandas_alone_reads_a_folder_of_different_optimizers(store):
    """Stored types and columns differ from file to file, and nothing is lost in either order."""
    adam = [trial(seed, "adam", betas=(0.9, 0.999), eps=1e-8, amsgrad=False) for seed in range(2)]
    sgd = [trial(seed, "sgd", momentum=0.9, decay=1, nesterov=None) for seed in range(2)]
    other = [trial(5, "sgd", momentum=1, decay="off", nesterov=True)]
    for stem, trials in (("b", sgd), ("c", adam), ("a", other)):
        store.save(chunk(trials), stem)
    frame = pd.read_parquet(store.folder / "records")
    assert len(frame) == 5
    assert list(frame["optimizer.momentum"].dropna()) == [1.0, 0.9, 0.9]
    assert list(frame["optimizer.betas"].dropna()) == ["[0.9, 0.999]"] * 2
    assert list(frame["optimizer.eps"].dropna()) == [1e-8] * 2
    assert list(frame["optimizer.decay"].dropna()) == ["off", "1", "1"]
    pd.testing.assert_frame_equal(frame, store.records()[frame.columns], check_dtype=False)


def test_pandas_alone_reads_series_of_different_measures(store):
    first, second = chunk([trial(0)]), chunk([trial(1)])
    first.epochs["val/mse"] = first.epochs.pop("val/accuracy")
    second.steps["train/loss"] = second.steps["train/loss"].astype(np.float64)
    store.save(first, "a")
    store.save(second, "b")
    assert {"val/mse", "val/accuracy"} <= set(pd.read_parquet(store.folder / "epochs").columns)
    assert len(pd.read_parquet(store.folder / "steps")) == len(store.steps()) == 24
    assert store.steps()["train/loss"].dtype == np.float64


def test_a_column_without_values_keeps_its_type(store):
    empty = {
        "best_val/loss": np.array([None]),
        "diverged_cause": np.array([np.nan]),
        "seconds": np.array([1]),
    }
    store.save(chunk([trial(0)], **empty), "a")
    filled = {"best_val/loss": [0.5], "diverged_cause": ["loss"], "seconds": [0.5], "diverged_step": [3]}
    store.save(chunk([trial(1)], **filled), "b")
    (store.folder / "records" / "+columns.parquet").unlink()  # the files agree even without it
    frame = pd.read_parquet(store.folder / "records")
    assert frame["best_val/loss"].dtype == frame["seconds"].dtype == np.float64
    assert list(frame["diverged_cause"].dropna()) == ["loss"]
    assert list(frame["diverged_step"].dropna()) == [3]


def test_stores_are_merged_by_copying_files(tmp_path):
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    one.save(chunk([trial(0), trial(1)]), "a")
    two.save(chunk([trial(1), trial(2, "adam", eps=1e-8)]), "b")
    for path in two.folder.glob("*/*.parquet"):
        (one.folder / path.parent.name / path.name).write_bytes(path.read_bytes())
    assert list(one.records()["seed"]) == [0, 1, 2]
    assert len(one.steps()) == 36, "a trial of both stores counts once"
    with one.lock():
        assert "optimizer.eps" in pd.read_parquet(one.folder / "records").columns


def test_a_failed_trial_is_not_done_and_a_later_success_wins(store):
    broken = chunk([trial(0), trial(1)], steps=1)
    broken.records["status"] = np.array(["finished", "failed"])
    store.save(broken, "z")
    assert store.done() == {trial(0).id}
    store.save(chunk([trial(1)], steps=5), "a")
    assert store.done() == {trial(0).id, trial(1).id}
    assert list(store.records()["status"]) == ["finished"] * 2
    assert len(store.steps({trial(1).id})) == 5, "series come from the file that won, never mixed"


def test_a_success_wins_over_a_failure_that_is_newer(store):
    store.save(chunk([trial(0)]), "a")
    store.save(chunk([trial(0)], status=np.array(["failed"])), "b")
    assert list(store.records()["status"]) == ["finished"]


@pytest.mark.parametrize(("better", "worse"), [("finished", "pruned"), ("diverged", "pruned"), ("pruned", "failed")])
@pytest.mark.parametrize("newer", ["better", "worse"])
def test_what_is_known_of_more_of_a_trial_wins_whichever_is_newer(store, better, worse, newer):
    for status in (worse, better) if newer == "better" else (better, worse):
        store.save(chunk([trial(0)], status=np.array([status])), status)
    assert list(store.records()["status"]) == [better]
    assert store.done() == ({trial(0).id} if better != "pruned" else set())


def test_files_of_pruned_trials_go_when_they_are_trained_since(store):
    store.save(chunk([trial(0)], status=np.array(["pruned"])), "a")
    with store.lock():
        store.save(chunk([trial(0)]), "b")
    assert {path.stem for path in (store.folder / "records").iterdir()} == {"+columns", "b"}


def test_the_newest_of_equal_rows_wins_whatever_the_file_times_say(store):
    for stem, accuracy in (("b", 0.1), ("a", 0.2)):
        store.save(chunk([trial(0)], **{"test/accuracy": [accuracy]}), stem)
    os.utime(store.folder / "records" / "b.parquet")
    assert list(store.records()["test/accuracy"]) == [0.2]


def test_a_trial_that_failed_at_once_has_no_series(store):
    nothing = Records(chunk([trial(0)]).records, {}, {})
    store.save(chunk([trial(0)]), "a")
    store.save(nothing, "a")
    assert len(store.records()) == 1 and len(store.steps()) == 0 and len(store.epochs()) == 0


def test_series_without_a_record_file_do_not_count_and_are_swept(store):
    store.save(chunk([trial(0)]), "a")
    store.save(chunk([trial(1)]), "b")
    (store.folder / "records" / "b.parquet").unlink()
    (store.folder / "steps" / ".c.parquet.1.tmp").write_text("half")
    assert len(store.steps()) == 12 and store.done() == {trial(0).id}
    with store.lock():
        left = {path.name for path in (store.folder / "steps").iterdir()}
    assert left == {"a.parquet", "+columns.parquet"}


def rewritten(change):
    """Write a table again with other columns, with what the file says about itself."""

    def damage(path):
        table = pq.read_table(path)
        changed = change(table)
        pq.write_table(changed.replace_schema_metadata(changed.schema.metadata or table.schema.metadata), path)

    return damage


def with_column(name, values):
    def change(table):
        values_ = pa.array(values if isinstance(values, list) else [values] * len(table))
        if name in table.column_names:
            return table.set_column(table.column_names.index(name), name, values_)
        return table.append_column(name, values_)

    return rewritten(change)


def stamped(key, value):
    return rewritten(lambda table: table.replace_schema_metadata({**table.schema.metadata, key: value}))


# What is done to a file, of which table, and what is said.
DAMAGES = {
    "records cut": ("records", lambda path: path.write_bytes(path.read_bytes()[:-50]), "damaged or incomplete"),
    "records empty": ("records", lambda path: path.write_bytes(b""), "damaged or incomplete"),
    "steps cut": ("steps", lambda path: path.write_bytes(path.read_bytes()[:300]), "damaged or incomplete"),
    "steps text": ("steps", lambda path: path.write_text("hello"), "damaged or incomplete"),
    "epochs gone": ("epochs", lambda path: path.unlink(), "is missing"),
    "steps gone": ("steps", lambda path: path.unlink(), "is missing"),
    "weights gone": ("weights", lambda path: path.unlink(), "is missing"),
    "weights cut": ("weights", lambda path: path.write_bytes(path.read_bytes()[:40]), "damaged or incomplete"),
    "rows lost": ("steps", rewritten(lambda table: table.slice(1)), "has 11 rows, and not 12"),
    "numbers as ids": ("records", with_column("id", 7), "has no valid column 'id'"),
    "text for a step": ("steps", with_column("step", "one"), "has no valid column 'step'"),
    "a null epoch": ("epochs", with_column("epoch", [None, None, None]), "has no valid column"),
    "a null among epochs": ("epochs", with_column("epoch", [1, None, 3]), "has rows without 'epoch'"),
    "a nested metric": ("records", with_column("test/accuracy", [[0.5]]), "has a column 'test/accuracy' of another"),
    "text for a metric": ("records", with_column("test/accuracy", "much"), "has a column 'test/accuracy' of another"),
    "a column gone": ("records", rewritten(lambda table: table.drop_columns(["test/accuracy"])), "columns, and not"),
    "a column twice": ("records", rewritten(lambda table: table.append_column("id", table["id"])), "two columns"),
    "no time": ("records", stamped(b"clipbench.saved", b"noon"), "has no valid time of saving"),
    "no rows said": ("records", stamped(b"clipbench.holds", b"[1]"), "does not say what belongs to it"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_left_out_then_set_aside_and_trained_again(store, damage):
    table, change, words = DAMAGES[damage]
    records = chunk([trial(0)])
    records.weights = {trial(0).id: np.zeros(3)}
    store.save(chunk([trial(1)]), "b")
    store.save(records, "a")
    path = store._path(table, "a")
    change(path)
    other = Store(store.folder)
    assert other.done() == {trial(1).id}, "a report goes on with the others"
    assert len(other.records()) == 1 and len(other.steps()) == 12
    (note,) = other.notes
    assert note.startswith(f"{path} ") and words in note and "`clipbench run` sets the file aside" in note
    run = Store(store.folder)
    with run.lock():
        assert run.done() == {trial(1).id}
        (note,) = run.notes
        assert (
            words in note
            and "The files of this name were renamed to a.*.damaged, and their trials are trained again." in note
        )
        run.save(records, "a")
    assert run.done() == {trial(0).id, trial(1).id}
    assert Store(store.folder).notes == []
    assert {file.name for file in store.folder.glob("records/*")} >= {"a.parquet.damaged", "a.parquet", "b.parquet"}


def test_a_file_that_the_system_does_not_open_is_not_damaged(store):
    store.save(chunk([trial(0)]), "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    other = Store(store.folder)
    with open(os.devnull) as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno() + 1, hard))
        try:
            with pytest.raises(ClipbenchError, match="cannot be read") as refused:
                other._rows("a")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "damaged" not in str(refused.value) and other.notes == []
    assert other.done() == {trial(0).id}


def test_a_flipped_bit_is_noticed_when_it_is_read(store):
    store.save(chunk([trial(0)], steps=5000), "a")
    path = store.folder / "steps" / "a.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ClipbenchError, match=r"damaged, and was set aside as a\.parquet\.damaged\. `clipbench run` trains"
    ):
        store.steps()
    assert Store(store.folder).done() == set() and path.with_name("a.parquet.damaged").exists()


def test_files_of_failed_trials_go_when_they_are_trained_since(store):
    both = [trial(0), trial(1)]
    store.save(Records.failed(both, "no luck"), "a")
    store.save(Records.failed(both[1:], "no luck"), "b")
    store.save(chunk([trial(2)]), "d")
    with store.lock():
        store.save(chunk(both[:1]), "c")
    assert {path.stem for path in (store.folder / "records").iterdir()} == {"+columns", "b", "c", "d"}
    assert set(store.current_rows()) == {trial(k).id for k in range(3)}


def test_files_of_somebody_else_are_left_alone(store):
    store.save(chunk([trial(0)]), "a")
    (store.folder / "records" / "notes.txt").write_text("hello")
    pd.DataFrame({"x": [1]}).to_parquet(store.folder / "records" / "mine.parquet")
    with store.lock():
        assert store.done() == {trial(0).id}
    assert (store.folder / "records" / "mine.parquet").exists()


def test_weights_come_back_by_trial(store):
    kept = chunk([trial(0), trial(1)])
    kept.weights = {one.id: np.full(5, one.seed, np.float32) for one in (trial(0), trial(1))}
    store.save(kept, "a")
    assert store.weights()[trial(1).id].tolist() == [1.0] * 5
    assert list(store.weights({trial(0).id})) == [trial(0).id]


@pytest.mark.parametrize("name", ["with space", 'it\'s "q"', "new\nline", "größe-日本", "lr=0.1", "%s[*]"])
def test_any_folder_name_works(tmp_path, name):
    store = Store(tmp_path / name)
    with store.lock():
        store.save(chunk([trial(0)]), "a")
    store.write_text("figures/a b.svg", "<svg>ü\n</svg>")
    assert len(store.records()) == 1 and len(store.steps()) == 12
    assert len(pd.read_parquet(store.folder / "records")) == 1
    assert (store.folder / "figures" / "a b.svg").read_bytes() == "<svg>ü\n</svg>".encode()


def test_nothing_is_written_outside_the_folder(store):
    with pytest.raises(ValueError, match="outside"):
        store.write_text("../report.md", "")
    with pytest.raises(ValueError, match="stem"):
        store.save(chunk([trial(0)]), "../a")


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(ClipbenchError, match=r"cannot be written.*--results DIR"):
        Store(tmp_path / "results" / "x").save(chunk([trial(0)]), "a")


def test_a_full_disk_says_what_to_do_and_leaves_no_half_file(store):
    store.save(chunk([trial(0)]), "a")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        with pytest.raises(ClipbenchError, match=r"cannot be written.*Free some disk space"):
            store.save(chunk([trial(1)], steps=5000), "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not list(store.folder.glob("*/.*")) and store.done() == {trial(0).id}


def test_a_second_run_on_the_same_folder_is_told_who_holds_it(store):
    with store.lock():
        script = f"from clipbench.store.folder import Store; Store({str(store.folder)!r}).lock().__enter__()"
        second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert f"process {os.getpid()} is training into this folder" in second.stderr
    with store.lock():
        pass


def test_a_killed_process_holds_nothing_and_leaves_whole_files(store):
    """Killed at a random moment, again and again: what has a record file is complete."""
    script = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from clipbench.store.folder import Store; from tests.fake_records import chunk, trial
        from clipbench.store.folder import Store
        store = Store({str(store.folder)!r})
        with store.lock():
            for seed in range(len(store.done()), 100_000):
                store.save(chunk([trial(seed)], steps=40), f"c-{{seed:06}}")
                print("saved", flush=True)
    """)
    for moment in random.Random(0).sample(range(100), 6):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"saved\n", "the lock of the killed one is free"
        time.sleep(moment / 1000)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        records = pd.read_parquet(store.folder / "records")
        assert len(records) == len(store.done())
        assert len(store.steps()) == 40 * len(records) and len(store.epochs()) == 3 * len(records)
    assert len(store.done()) > 4


@pytest.mark.slow
def test_saving_a_chunk_is_quick(store):
    trials = [trial(seed) for seed in range(14)]
    big = chunk(trials)
    big.steps = series(trials, "step", 340, [f"measure/{number}" for number in range(8)])
    store.save(big, "warm")
    best = min(_seconds(lambda stem=stem: store.save(big, stem)) for stem in ("a", "b", "c", "d", "e"))
    assert best < 0.1, "30 ms on a quiet laptop"


def _seconds(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def test_a_file_is_replaced_and_never_written_over(tmp_path):
    path, reader = tmp_path / "report.md", tmp_path / "still open elsewhere"
    write_atomically(path, b"old")
    os.link(path, reader)
    write_atomically(path, b"new")
    assert (path.read_bytes(), reader.read_bytes()) == (b"new", b"old")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.md", "still open elsewhere"]
