"""Runs of the real command on small experiments, and what they left behind: output, tables, processes."""

import os
import subprocess
import sysconfig
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import yaml
from typer.testing import CliRunner

from clipbench.cli import app

CLIPBENCH = str(Path(sysconfig.get_path("scripts")) / "clipbench")
TIMINGS = ("seconds", "step_us")
MARK = "CLIPBENCH_TEST_MARK"

ARMS = ("none", {"name": "norm", "threshold": [0.5, 1.0]}, {"name": "value", "threshold": 0.01})

# Components of a user. Files beside this one say whether and how a worker has an accident while it trains:
# `once` is used up by the first who meets it, `always` stays, and its text says what happens.
MINE = """
import os
import time
import traceback
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent
BATCH = 32


def accident():
    text = (HERE / "always").read_text() if (HERE / "always").exists() else ""
    try:
        os.rename(HERE / "once", HERE / "used")
        text = (HERE / "used").read_text()
    except FileNotFoundError:
        pass
    if text == "exit":
        os._exit(7)
    if text == "kill":
        os.kill(os.getpid(), 9)
    if text == "raise":
        raise RuntimeError("the cat sat on the keyboard")


def is_planned():
    # Whether the model is only tried.
    return any(frame.filename.endswith("planning/build.py") for frame in traceback.extract_stack())


class Net(nn.Module):
    def __init__(self, inputs, outputs, pause, looped, fragile):
        super().__init__()
        self.head = nn.Linear(inputs, outputs)
        self.pause, self.looped, self.fragile, self.steps = pause, looped, fragile, 0

    def forward(self, x):
        if len(x) == BATCH and self.fragile and self.looped:
            self.steps += 1
            if self.steps > 3:
                accident()
        elif len(x) == BATCH and self.fragile and not is_planned():
            accident()
        if self.looped and float(x.detach().sum()) < 0:  # no vmap takes this
            x = -x
        if self.pause and len(x) == BATCH and not is_planned():
            time.sleep(self.pause)
        return self.head(x)


def net(inputs, outputs, pause=0.0, looped=False, fragile=True):
    return Net(inputs, outputs, pause, looped, fragile)


def talkative(inputs, outputs):
    print("the model says hello")
    os.system("echo its shell says hello")
    return nn.Linear(inputs, outputs)


def noisy_data():
    print("the data say hello")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 4, generator=generator)
    return x, (x.sum(1) > 0).long()
"""


def experiment(**changes):
    """A small experiment as plain values; `None` takes a section away."""
    sections = {
        "name": "small",
        "data": {"name": "digits", "limit": 100},
        "model": {"name": "mlp", "hidden": [8]},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "train": {"epochs": 2, "batch_size": 32},
        "clip": list(ARMS),
        "seeds": 3,
    }
    return {name: value for name, value in {**sections, **changes}.items() if value is not None}


def write(folder, file="small.yaml", **changes):
    """The experiment as a file, with the user's components beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.py").write_text(MINE)
    path = folder / file
    path.write_text(yaml.safe_dump(experiment(**changes), sort_keys=False, allow_unicode=True))
    return path


def invoke(*arguments):
    """The command in this process: quick, because its workers are forked from what is loaded already."""
    environment = {"MLFLOW_TRACKING_URI": None, "COLUMNS": "100"}
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def train(path, results, *options):
    """Run without MLflow, and be content."""
    result = invoke("run", path, "--results", results, "--no-mlflow", *options)
    assert result.exit_code == 0, result.stderr
    return result


def environment(mark=""):
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return {**kept, "COLUMNS": "100", MARK: mark}


def shell(*arguments, **options):
    """The command in a process of its own, to its end."""
    command = [CLIPBENCH, *map(str, arguments)]
    options = {"capture_output": True, "text": True, "timeout": 120, "env": environment(), **options}
    return subprocess.run(command, **options)


@contextmanager
def started(*arguments, **options):
    """The command in a process and session of its own, under way. Afterwards nobody is left."""
    mark = uuid.uuid4().hex
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        [CLIPBENCH, *map(str, arguments)], env=environment(mark), start_new_session=True, **{**pipes, **options}
    )
    process.mark = mark
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        for pid in processes(mark):
            os.kill(pid, 9)


def processes(mark):
    """Whoever still lives of those started with a mark, children of children too."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _lives(entry, mark)]


def _lives(entry, mark):
    try:
        state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def until(condition, seconds=60):
    """Wait for something that must happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def saved(folder):
    """The record files of an experiment's folder, whole ones."""
    return [path for path in (folder / "records").glob("*.parquet") if path.name[0] not in ".+"]


def records(folder):
    """By trial, without what a clock says."""
    frame = pd.read_parquet(folder / "records")
    return _indexed(frame.drop(columns=list(TIMINGS), errors="ignore"), ["id"])


def series(folder, name):
    return _indexed(pd.read_parquet(folder / name), ["id", name.removesuffix("s")])


def table(folder):
    return pd.read_csv(folder / "table.csv").drop(columns="step_us")


def _indexed(frame, keys):
    assert not frame.duplicated(keys).any(), "every row once"
    return frame.set_index(keys).sort_index().sort_index(axis=1)


def assert_same(one, other):
    """Every measure of two results folders, bit for bit."""
    pd.testing.assert_frame_equal(records(one), records(other), check_exact=True)
    pd.testing.assert_frame_equal(table(one), table(other), check_exact=True)
    for name in ("epochs", "steps"):
        pd.testing.assert_frame_equal(series(one, name), series(other, name), check_exact=True)


def half_files(folder):
    """What a killed writer may have left."""
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]
