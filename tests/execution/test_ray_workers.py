"""A real Ray cluster of two nodes on this machine: it trains what this machine does, whoever of it is killed."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

from clipbench.errors import ClipbenchError
from clipbench.execution.shipped_files import ShippedFiles
from clipbench.store.folder import Store
from tests.cli_helpers import invoke, processes, records, saved, shell, started, table, train, until, write

pytest.importorskip("ray", reason="requires Ray")

# A model that trains only where nothing else of the experiment's folder is.
ELSEWHERE = """
import traceback
from pathlib import Path

from torch import nn


def net(inputs, outputs):
    is_planned = any(frame.filename.endswith("planning/build.py") for frame in traceback.extract_stack())
    if not is_planned and Path(__file__).with_name("small.yaml").exists():
        raise RuntimeError("this is the folder of the YAML")
    return nn.Linear(inputs, outputs)
"""
DEADLY = """
import os
import traceback

from torch import nn


def net(inputs, outputs):
    if not any(frame.filename.endswith("planning/build.py") for frame in traceback.extract_stack()):
        with open(f"/proc/{os.getppid()}/stat") as server:  # whose parent is the actor
            os.kill(int(server.read().split()[3]), 9)
    return nn.Linear(inputs, outputs)
"""
MEMORY = 80 * 2**20
LONGER = {
    "model": {"name": "mlp", "hidden": [[4], [6], [8], [10]]},
    "train": {"epochs": 600, "batch_size": 32},
    "seeds": 16,
}


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": MEMORY})
    made.second = made.add_node(num_cpus=1, object_store_memory=MEMORY)
    yield made
    made.shutdown()


def assert_as_on_this_machine(folder, expected):
    """Apart from the column that says where a trial was trained."""
    mine, theirs = records(folder), records(expected)
    assert set(mine) - set(theirs) == {"node"} and mine["node"].str.contains(os.uname().nodename).all()
    pd.testing.assert_frame_equal(mine[theirs.columns], theirs)
    assert table(folder).equals(table(expected))


def test_a_cluster_trains_the_users_own_files_as_this_machine_does(cluster, tmp_path):
    path = write(tmp_path, model={"name": "./elsewhere.py:net"}, data={"name": "csv", "path": "x.csv", "target": "y"})
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    table_of = pd.DataFrame({"a": range(90), "b": [n % 7 for n in range(90)], "y": [n % 2 for n in range(90)]})
    table_of.to_csv(tmp_path / "x.csv", index=False)
    said = invoke("run", path, "--results", tmp_path / "failed", "--no-mlflow")
    assert said.exit_code == 3 and "this is the folder of the YAML" in said.stderr
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE.replace("with_name(", 'with_name("no" + '))
    train(path, tmp_path / "here")
    train(path, tmp_path / "there", "--executor", "ray", "--ray-address", cluster.address)
    assert_as_on_this_machine(tmp_path / "there" / "small", tmp_path / "here" / "small")
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    train(path, tmp_path / "moved", "--executor", "ray", "--ray-address", cluster.address)


@pytest.mark.parametrize("how", ["link", "writable"])
def test_files_are_unpacked_nowhere_where_others_can_change_them(tmp_path, monkeypatch, how):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    place = tmp_path / f"clipbench-files-{os.getuid()}"
    ShippedFiles({"/a/b.py": b"x = 1"}).unpack(["/a"])
    (written,) = place.rglob("*.py")
    assert written.read_bytes() == b"x = 1" and sys.path.pop(0) == str(written.parent)
    if how == "link":
        place.rename(tmp_path / "other")
        place.symlink_to(tmp_path / "other")
    else:
        place.chmod(0o777)
    with pytest.raises(ClipbenchError, match="belongs to somebody else"):
        ShippedFiles({"/a/b.py": b"x = 1"})


def lose_worker(cluster):
    found = subprocess.run(["pgrep", "-f", "ray::Relay"], capture_output=True, text=True, check=True)
    os.kill(int(found.stdout.split()[0]), 9)


def lose_node(cluster):
    cluster.remove_node(cluster.second, allow_graceful=False)


@pytest.mark.slow
@pytest.mark.parametrize("lose", [lose_worker, lose_node])
def test_whatever_is_lost_of_a_cluster_all_trials_are_trained_once(cluster, tmp_path, lose):
    path = write(tmp_path, **LONGER)
    train(path, tmp_path / "here", "--workers", "2")
    there = tmp_path / "there" / "small"

    def fault():
        until(lambda: there.exists() and saved(there))
        lose(cluster)

    breaking = threading.Thread(target=fault)
    breaking.start()
    options = ["--executor", "ray", "--ray-address", cluster.address, "--json"]
    said = shell("run", path, "--results", tmp_path / "there", "--no-mlflow", *options, timeout=300)
    breaking.join()
    assert said.returncode == 0 and json.loads(said.stdout)["trained"] == 4 * 4 * 16, "Ray prints nothing on stdout"
    assert len(Store(there).done()) == len(pd.read_parquet(there / "records")) == 4 * 4 * 16
    assert_as_on_this_machine(there, tmp_path / "here" / "small")


def is_ours(pid):
    try:
        return b"Agent" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.slow
def test_a_command_that_ends_amid_work_leaves_nobody_and_the_next_goes_on(tmp_path):
    path, there = write(tmp_path, **LONGER), tmp_path / "there" / "small"
    command = ["run", path, "--results", tmp_path / "there", "--no-mlflow", "--executor", "ray"]
    for sign, code in ((signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)):
        with started(*command) as process:
            before = len(saved(there))
            until(lambda before=before: there.exists() and len(saved(there)) > before, seconds=90)
            os.kill(process.pid, sign)
            said = process.communicate(timeout=60)[1]
            assert process.returncode == code and "Traceback" not in said
            assert code < 0 or "Finished trials are saved. To continue: clipbench run " in said
            # Ours end within seconds. Agents of Ray's own take up to a minute to see that their cluster was killed.
            until(lambda: not [each for each in processes(process.mark) if is_ours(each)], seconds=20)
            until(lambda: not processes(process.mark), seconds=120)
    done = shell(*command, timeout=300)
    assert done.returncode == 0, done.stderr
    train(path, tmp_path / "here", "--workers", "2")
    assert_as_on_this_machine(there, tmp_path / "here" / "small")


@pytest.mark.slow
def test_a_chunk_whose_workers_are_always_lost_is_given_up(cluster, tmp_path):
    """As where a function of the user's takes its machine down."""
    path = write(tmp_path, model="./deadly.py:net", clip=["none"], seeds=1)
    (tmp_path / "deadly.py").write_text(DEADLY)
    options = ["--executor", "ray", "--ray-address", cluster.address]
    said = invoke("run", path, "--results", tmp_path / "there", "--no-mlflow", *options)
    assert said.exit_code == 3 and "was lost." in said.stderr


@pytest.mark.slow
def test_pruning_asks_in_step_on_a_cluster_too(cluster, tmp_path):
    sweep = {"trials": 8, "seeds": 2, "batch": 4, "confirm_seeds": 2, "pruner": "hyperband"}
    arms = ["none", {"name": "norm", "threshold": {"log": [0.01, 100], "points": 3}}]
    path = write(tmp_path, clip=arms, train={"epochs": 12, "batch_size": 32}, sweep=sweep)
    for where, options in {"here": ["--workers", "2"], "there": ["--executor", "ray"]}.items():
        address = ["--ray-address", cluster.address] if where == "there" else []
        said = invoke("sweep", path, "--results", tmp_path / where, "--no-mlflow", *options, *address)
        assert said.exit_code == 0, said.stderr
    assert "pruned" in set(records(tmp_path / "there" / "small")["status"])
    assert_as_on_this_machine(tmp_path / "there" / "small", tmp_path / "here" / "small")


@pytest.mark.slow
def test_without_a_cluster_one_is_started_for_the_command(tmp_path):
    path = write(tmp_path)
    train(path, tmp_path / "here")
    train(path, tmp_path / "there", "--executor", "ray", "--workers", "1")
    assert_as_on_this_machine(tmp_path / "there" / "small", tmp_path / "here" / "small")


def test_mistakes_are_said_and_start_nothing(tmp_path, monkeypatch):
    path = write(tmp_path)
    said = invoke("run", path, "--executor", "ray", "--cpus-per-worker", "0")
    assert said.exit_code == 2 and "--cpus-per-worker: expected a number above 0, got 0." in said.stderr
    said = invoke("run", path, "--gpus-per-worker", "1")
    assert said.exit_code == 2 and "--gpus-per-worker: is for Ray clusters. Add --executor ray." in said.stderr
    for address, words in {"127.0.0.1:1": "refused", "nowhere": "expected host:port", "127.0.0.1:99999": ""}.items():
        said = invoke("run", path, "--executor", "ray", "--ray-address", address)
        assert said.exit_code == 2 and f"--ray-address {address}: there is no Ray cluster: " in said.stderr
        assert words in said.stderr and "ray start --head" in said.stderr
    monkeypatch.setitem(sys.modules, "ray", None)
    said = invoke("run", path, "--executor", "ray", "--results", tmp_path / "results")
    assert said.exit_code == 2 and "pip install clipbench[ray]" in said.stderr
    assert not (tmp_path / "results").exists()
