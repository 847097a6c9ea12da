"""Workers that die, fail and are left alone: what is lost is trained again, and nobody else notices."""

import json
import os
import re
import signal

import pytest

from clipbench.errors import ClipbenchError
from clipbench.execution.worker_pool import WorkerPool
from tests.cli_helpers import (
    assert_same,
    invoke,
    processes,
    records,
    saved,
    started,
    train,
    until,
    write,
)

OWN = ["./mine.py:net", {"name": "./mine.py:net", "fragile": False, "looped": True}]


def run(path, *options):
    return invoke("run", path, "--results", path.parent / "results", "--no-mlflow", *options)


@pytest.fixture(scope="module", params=[False, True], ids=["vectorised", "looped"])
def undisturbed(request, tmp_path_factory):
    """Changes of the experiment, and the results of a run without an accident."""
    model = {"name": "./mine.py:net", "looped": request.param}
    path = write(tmp_path_factory.mktemp("undisturbed"), model=model)
    train(path, path.parent / "results")
    return model, path.parent / "results" / "small"


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_worker_that_dies_is_replaced_and_its_lanes_are_trained_again(undisturbed, tmp_path, how):
    model, expected = undisturbed
    path = write(tmp_path, model=model)
    (tmp_path / "once").write_text(how)
    said = run(path, "--json")
    assert (tmp_path / "used").exists(), "the accident happened"
    assert (said.exit_code, json.loads(said.stdout)["trained"]) == (0, 12)
    assert_same(tmp_path / "results" / "small", expected)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("exit", "the worker process ended with exit code 7, 2 times"),
        pytest.param(
            "kill",
            "the worker process was killed by SIGKILL, which the system sends where memory is short, 2 times",
            marks=pytest.mark.slow,
        ),
        ("raise", "RuntimeError: the cat sat on the keyboard"),
    ],
)
def test_what_cannot_be_trained_fails_alone_and_is_tried_again_by_the_next_run(tmp_path, how, words):
    path = write(tmp_path, model=OWN, seeds=2)
    (tmp_path / "always").write_text(how)
    said = run(path)
    assert said.exit_code == 3 and words in said.stderr and "Traceback" not in said.stderr
    assert sum(int(number) for number in re.findall(r"^(\d+) trials? failed", said.stderr, re.M)) == 8
    assert "Run the same command to retry." in said.stderr
    frame = records(tmp_path / "results" / "small")
    fragile = frame["model.fragile"].astype(bool)
    assert set(frame.loc[fragile, "status"]) == {"failed"} and set(frame.loc[~fragile, "status"]) == {"finished"}
    assert frame.loc[fragile, "error"].str.contains(words, regex=False).all()
    assert "failed" in said.stdout, "the table says who is missing"

    (tmp_path / "always").unlink()
    again = run(path, "--json")
    assert (again.exit_code, json.loads(again.stdout)["trained"]) == (0, 8)
    assert set(records(tmp_path / "results" / "small")["status"]) == {"finished"}


@pytest.mark.parametrize("how", ["raise", "exit"])
def test_one_that_fails_takes_nobody_with_it(tmp_path, how):
    """An arm fails on every seed; the other arms of its chunk are trained all the same."""
    (tmp_path / "arm.py").write_text(
        "import os\nfrom clipbench import strategy\n"
        "@strategy(per='model')\n"
        "def unlucky(n, step, threshold):\n"
        "    if step > 3 and (threshold > 6).any():\n"
        f"        {'os._exit(7)' if how == 'exit' else 'raise RuntimeError(how)'}\n"
        "    return 1 + 0 * n, n > threshold\n".replace("how)", "'no seven')")
    )
    unlucky = {"name": "./arm.py:unlucky", "threshold": [5.0, 7.0]}
    path = write(tmp_path, clip=["none", {"name": "norm", "threshold": 1.0}, unlucky], seeds=3)
    said = run(path)
    assert said.exit_code == 3
    words = "the worker process ended with exit code 7, 2 times" if how == "exit" else "RuntimeError: no seven"
    assert f"3 trials failed: {words}" in said.stderr
    frame = records(tmp_path / "results" / "small")
    assert set(frame.loc[frame["status"] == "failed", "threshold"]) == {7.0}
    assert list(frame["status"]).count("finished") == 9

    calm = write(tmp_path / "calm", clip=["none", {"name": "norm", "threshold": 1.0}], seeds=3)
    train(calm, calm.parent / "results")
    expected = records(calm.parent / "results" / "small")["train/loss"]
    assert frame["train/loss"][expected.index].tolist() == expected.tolist()


def test_failures_are_in_the_json_too(tmp_path):
    path = write(tmp_path, model="./mine.py:net", seeds=1)
    (tmp_path / "always").write_text("raise")
    said = run(path, "--json")
    document = json.loads(said.stdout)
    assert said.exit_code == 3 and document["trained"] == 0
    assert any("the cat sat on the keyboard" in failure for failure in document["failed"])


def test_a_model_that_kills_the_process_while_it_is_looked_at_is_a_message(tmp_path):
    (tmp_path / "deadly.py").write_text("import os\ndef net():\n    os._exit(3)\n")
    said = run(write(tmp_path, model="./deadly.py:net"))
    assert said.exit_code == 1 and "the worker process that reads the experiment ended with exit code 3" in said.stderr
    assert not (tmp_path / "results").exists()


def test_an_idle_worker_that_is_gone_is_noticed():
    with WorkerPool(1) as pool:
        assert pool.call("os:getpid") != os.getpid()
        os.kill(pool.call("os:getpid"), signal.SIGKILL)
        with pytest.raises(ClipbenchError, match="was killed by SIGKILL"):
            pool.call("os:getpid")


def test_a_pool_leaves_nobody_behind_however_it_ends():
    pids = []
    with pytest.raises(ZeroDivisionError), WorkerPool(1) as pool:
        pids.append(pool.call("os:getpid"))
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_workers_die_with_a_parent_that_is_killed(tmp_path):
    slow = {"name": "./mine.py:net", "pause": 0.2, "looped": True}
    path = write(tmp_path, model=["./mine.py:net", slow], seeds=2)
    with started("run", path, "--results", tmp_path / "r", "--no-mlflow", "--workers", "2") as process:
        until(lambda: saved(tmp_path / "r" / "small"))
        assert len(processes(process.mark)) >= 4, "two workers, who loaded torch for them, and their parent"
        process.kill()
        until(lambda: not processes(process.mark))
