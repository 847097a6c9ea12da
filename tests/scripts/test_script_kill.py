"""A command that is killed while it runs a script: the next one goes on, and the results are the same."""

import os
import random
import time

import pandas as pd
import pytest

from tests.cli_helpers import TIMINGS, saved, started, train, until
from tests.scripts.helpers import write_script

ARMS = ["none", {"name": "autoclip", "threshold": [20, 50]}]


def results(folder, name):
    frame = pd.read_parquet(folder / "results" / "script" / name).drop(columns=list(TIMINGS), errors="ignore")
    return frame.sort_values(["id", name.removesuffix("s")] if name != "records" else ["id"], ignore_index=True)


@pytest.mark.parametrize("done", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 3, 4, 6, 8, 9))])
def test_a_killed_command_loses_nothing(tmp_path, done):
    folders = [tmp_path / name for name in ("killed", "undisturbed")]
    paths = [write_script(folder, clip=ARMS, seeds=2 if done == 2 else 4) for folder in folders]
    with started("run", paths[0], "--results", folders[0] / "results", "--no-mlflow") as command:
        until(lambda: len(saved(folders[0] / "results" / "script")) >= done)
        time.sleep(random.Random(done).random() / 10)
        os.kill(command.pid, 9)
    assert len(saved(folders[0] / "results" / "script")) < (6 if done == 2 else 12), "it was killed before its end"
    for path, folder in zip(paths, folders, strict=True):
        train(path, folder / "results")
    for name in ("records", "epochs", "steps"):
        pd.testing.assert_frame_equal(*(results(folder, name) for folder in folders), check_exact=True)
