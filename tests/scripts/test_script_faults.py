"""Scripts that go wrong: a clear sentence for each, and the other trials go on."""

import os
import random
import time

import pandas as pd
import pytest

from clipbench.execution import script_trials
from tests.cli_helpers import invoke, processes, started, until
from tests.scripts.helpers import write_script

# What the script does, and the sentence that its error has.
FAULTS = {
    "no backward": "faulty_script.py:22: no parameter has a gradient: there was no loss.backward() since the last step",
    "no step": "main has trained no step. Call clip.step(loss) after each loss.backward().",
    "twice": "faulty_script.py:27: no parameter has a gradient: there was no loss.backward() since the last step, or "
    "clip.step was called twice.",
    "own step": "faulty_script.py:30: optimizer.step() was called with a gradient that is not clipped. Call "
    "clip.step(loss) in its place",
    "raises": "faulty_script.py:51: RuntimeError: the cat sat on the keyboard.",
    "hangs": "main takes longer than train.timeout, 15 s. Its last lines: this is none of seed 0: hangs.",
    "exits": "faulty_script.py:55: main called exit(3). Return the measures instead.",
    "dies": "the process of the script ended with exit code 7, 2 times. Its last lines: about to die",
    "killed": "the process of the script was killed by signal 9, 2 times.",
    "eats": "more than train.memory, 1 GB.",
    "asks": "EOFError: EOF when reading a line.",
    "bad report": "a measure is named as val/loss or test/accuracy, got 'loss'.",
    "bad measure": "clip.report: val/loss must be a number, got str.",
    "returns nothing": 'main returned nothing. Return what was measured, such as {"test/loss": 0.5}.',
    "returns a number": 'main returned: expected a mapping such as {"val/loss": 0.5}, got float.',
}
GOOD = ["", "prints", "fork", "leaves a process", "diverges"]


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    how = [*FAULTS, *GOOD]
    random.Random(0).shuffle(how)
    path = write_script(folder, "faulty_script.py", train={"how": how, "timeout": "15s", "memory": "1GB"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script_trials, "SILENT_SECONDS", 3.0)
        said = invoke("run", path, "--results", folder / "results", "--no-mlflow")
    records = pd.read_parquet(folder / "results" / "script" / "records").set_index("train.how")
    return said, records, folder / "results" / "script"


@pytest.mark.parametrize("how", FAULTS)
def test_what_goes_wrong_is_said_with_its_line(tried, how):
    said, records, _ = tried
    assert records.loc[how, "status"] == "failed"
    assert FAULTS[how] in records.loc[how, "error"]
    assert FAULTS[how] in said.stderr


def test_a_trial_that_takes_no_steps_is_named_while_it_hangs(tried):
    said, records, folder = tried
    output = folder / "logs" / f"{records.loc['hangs', 'id']}.txt"
    assert f"none seed 0 has taken no step for 0 minutes. Its output: {output}." in " ".join(said.stderr.split())


def test_the_other_trials_go_on(tried):
    said, records, _ = tried
    assert said.exit_code == 3
    assert "Traceback" not in said.output
    statuses = records.loc[GOOD, "status"].to_dict()
    assert statuses == {**dict.fromkeys(GOOD, "finished"), "diverges": "diverged"}
    assert records.loc["diverges", ["diverged_step", "diverged_cause"]].tolist() == [5, "weights"]


def test_trials_are_not_started_where_all_others_with_their_options_have_failed_alike(tmp_path):
    clips = ["none", {"name": "norm", "threshold": [1.0, 2.0]}]
    changes = {"train": {"how": ["raises", ""]}, "clip": clips, "seeds": 4}
    path = write_script(tmp_path, "faulty_script.py", **changes)
    said = invoke("run", path, "--results", tmp_path / "results", "--no-mlflow", "--workers", "1")
    assert said.exit_code == 3
    records = pd.read_parquet(tmp_path / "results" / "script" / "records")
    assert records.groupby("train.how")["status"].agg(list).to_dict() == {
        "raises": 4 * ["failed"],
        "": 12 * ["finished"],
    }
    words = " ".join(said.stderr.split())
    assert (
        "8 more trials were not started with how raises, lr 0.1: all 4 before, of 3 arms, failed in the same way"
        in words
    )
    assert "8 trials not trained yet" in said.output


def test_what_a_script_prints_is_in_a_file_of_its_trial_which_stays_small(tried):
    said, records, folder = tried
    output = {how: (folder / "logs" / f"{records.loc[how, 'id']}.txt") for how in ("raises", "prints")}
    text = output["raises"].read_text()
    assert text.startswith("clipbench: none, seed 0, how raises, lr 0.1, 20")
    assert "this is none of seed 0: raises" in text
    assert "RuntimeError: the cat sat on the keyboard" in text
    assert "this is none of seed 0: eats" not in said.output
    assert f"Its output: {output['raises']}." in said.stderr
    assert output["prints"].stat().st_size < 25_000_000
    assert "bytes of output left out" in output["prints"].read_text()


def test_nothing_that_a_script_has_started_outlives_a_killed_command(tmp_path):
    path = write_script(tmp_path, "faulty_script.py", train={"how": ["hangs", "leaves a process"]}, seeds=2)
    with started("run", path, "--results", tmp_path / "results", "--no-mlflow") as command:
        logs = tmp_path / "results" / "script" / "logs"
        until(lambda: logs.exists() and sum(": hangs" in file.read_text() for file in logs.iterdir()) >= 1)
        time.sleep(0.5)
        os.kill(command.pid, 9)
        until(lambda: not processes(command.mark), seconds=20)
