"""The commands run and report from outside: streams, exit codes, mistakes in options, interruptions."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from clipbench.execution.local_workers import CHECKPOINT_SECONDS
from tests.cli_helpers import (
    CLIPBENCH,
    environment,
    invoke,
    processes,
    records,
    saved,
    shell,
    started,
    table,
    until,
    write,
)

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
SLOW = {"name": "./mine.py:net", "pause": 0.02, "looped": True}
QUICK_THEN_SLOW = ["./mine.py:net", {**SLOW, "pause": 1.0}]  # saved at once; half a minute


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the installed command into a folder with an awkward name, and what it said."""
    root = tmp_path_factory.mktemp("finished")
    path, results = write(root), root / 'my "résultats" it\'s'
    return path, results, shell("run", path, "--results", results, "--no-mlflow", cwd=root)


# Streams


@pytest.mark.native  # a note says where there are none
def test_without_a_terminal_there_are_plain_lines_and_no_control_codes(finished):
    _, results, said = finished
    assert said.returncode == 0, said.stderr
    assert not CONTROL.search(said.stdout + said.stderr)
    assert said.stderr.removeprefix("Planning\n") == "Training 12 trials\n"  # said of a machine that needs 10 s for it
    assert f"Written: {results}/small/ report.md" in said.stdout


def test_json_is_one_document_whatever_the_users_functions_print(tmp_path):
    path = write(tmp_path, model="./mine.py:talkative", data="./mine.py:noisy_data", seeds=1)
    said = shell("run", path, "--results", tmp_path / "r", "--no-mlflow", "--json")
    document = json.loads(said.stdout)
    assert (said.returncode, document["experiment"], document["trained"], document["failed"]) == (0, "small", 4, [])
    assert document["report"]["settings"][0]["rows"]
    assert "the model says hello" in said.stderr and "its shell says hello" in said.stderr
    assert "the data say hello" in said.stderr and "Training 4 trials" in said.stderr


def test_quiet_says_nothing_when_all_is_well(finished):
    path, results, _ = finished
    said = invoke("run", path, "--results", results, "--no-mlflow", "-q")
    assert (said.exit_code, said.stdout, said.stderr) == (0, "", "")


def test_a_reader_who_has_seen_enough_is_no_error(finished):
    _, results, said = finished
    shown = subprocess.run(
        f'set -o pipefail; "{CLIPBENCH}" report small --results "$RESULTS" | head -1',
        shell=True,
        executable=shutil.which("bash"),
        env={**environment(), "RESULTS": str(results)},
        capture_output=True,
        text=True,
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == said.stdout.splitlines(keepends=True)[0]


# --dry-run


def test_a_dry_run_counts_what_is_missing_and_writes_nothing(finished, tmp_path):
    path, results, _ = finished
    fresh = json.loads(invoke("run", path, "--results", tmp_path / "r", "--dry-run", "--json").stdout)
    assert (fresh["trials"], fresh["done"], fresh["missing"], fresh["cohorts"]) == (12, 0, 12, 1)
    assert 0 < fresh["seconds"] < 60 and fresh["bytes"] > 2**20
    assert fresh["smallest_p"] == pytest.approx(2 * 2 / 2**3)
    assert not (tmp_path / "r").exists()

    before = sorted(results.rglob("*"))
    more = json.loads(invoke("run", path, "--results", results, "--dry-run", "--json", "--seeds", "5").stdout)
    assert (more["trials"], more["done"], more["missing"]) == (20, 12, 8)
    assert sorted(results.rglob("*")) == before


def test_a_dry_run_says_it_in_words(finished):
    path, results, _ = finished
    said = invoke("run", path, "--results", results, "--dry-run").stdout
    assert "4 arms x 3 seeds = 12 trials" in said and "12 of 12 trials" in said
    assert re.search(r"time +about \d+ s", said) and re.search(r"memory +about [\d,]+ MB", said)
    assert "the smallest p after Holm is 0.5" in said


# report


def test_report_has_every_format(finished):
    path, results, _ = finished
    report = [invoke("report", path, "--results", results, "--format", f) for f in ("markdown", "csv", "json")]
    assert [each.exit_code for each in report] == [0, 0, 0]
    markdown, delimited, document = (each.stdout for each in report)
    assert markdown.startswith("#") and "| none" in markdown
    assert delimited.splitlines()[0].startswith("setting,arm,strategy,threshold")
    assert len(table(results / "small")) == len(delimited.strip().splitlines()) - 1 == 4
    assert [each["name"] for each in json.loads(document)["experiments"]] == ["small"]
    assert document == invoke("report", path, "--results", results, "--json").stdout


@pytest.mark.parametrize("command", ["report", "push"])
def test_a_misspelt_name_is_answered_with_the_experiment_of_the_results_folder(command, finished, tmp_path):
    _, results, _ = finished
    said = invoke(command, "smal", "--results", results)
    assert said.exit_code == 2
    assert said.stderr == f"smal: neither a file nor an experiment in {results}. Did you mean `small`?\n"
    assert invoke(command, "x", "--results", tmp_path).stderr == f"x: neither a file nor an experiment in {tmp_path}.\n"


def test_several_experiments_are_reported_on_one_page(finished):
    path, results, _ = finished
    said = invoke("report", path, "small", "--results", results)
    assert said.stdout.startswith("All experiments: 2 experiments, 2 settings") and said.stdout.count("- small: ") == 2
    assert "Combined report: " in said.stderr and (results / "report.html").is_file()
    assert (results / "report.md").read_text("utf-8").startswith("# All experiments")
    document = invoke("report", path, path, "--results", results, "--json").stdout
    assert len(json.loads(document)["experiments"]) == 2
    (results / "report.html").unlink(), (results / "report.md").unlink()


def test_report_before_any_run_says_what_to_do(tmp_path):
    said = invoke("report", write(tmp_path), "--results", tmp_path / "r")
    assert said.exit_code == 1 and "nothing has been trained yet" in said.stderr and "clipbench run" in said.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("command", ["run", "report"])
@pytest.mark.parametrize("name", ["nosuch", "nosuch.yaml", "folder/nosuch.yaml", "."])
def test_an_experiment_that_is_not_there_is_a_wrong_input(command, name, tmp_path):
    said = invoke(command, name, "--results", tmp_path / "r")
    assert said.exit_code == 2 and name in said.stderr and "Traceback" not in said.stderr
    assert not (tmp_path / "r").exists()


# Options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--device", "tpu"], "--device"),
        (["--device", "mps"], "--device mps: not available on this machine. Available: cpu"),
        (["--workers", "0"], "--workers"),
        (["--workers", "many"], "'many'"),
        (["--workers", "-1"], "--workers"),
        (["--seeds", "0"], "--seeds"),
        (["--set", "train.epohcs=3"], "epohcs"),
        (["--set", "nonsense"], "nonsense"),
        (["--set", "clip[9].threshold=1"], "clip[9]"),
        (["--tracking-uri", "./mlruns"], "--tracking-uri"),
        (["--tracking-uri", "ftp://me:hunter2@host"], "unknown kind of tracking URI `ftp`"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_option_starts_nothing(finished, tmp_path, options, words):
    if words.startswith("--device mps: "):
        torch = pytest.importorskip("torch")
        if torch.backends.mps.is_available() or torch.cuda.is_available():
            pytest.skip("this machine has more than a CPU")
    said = invoke("run", finished[0], "--results", tmp_path / "r", *options)
    assert said.exit_code == 2 and words in said.stderr, said.stderr
    assert "Traceback" not in said.stderr and "hunter2" not in said.stderr and not said.stdout
    assert not (tmp_path / "r").exists()


def test_a_wrong_tracking_uri_of_the_environment_starts_nothing(finished, tmp_path):
    said = shell(
        "run",
        finished[0],
        "--results",
        tmp_path / "r",
        env={**environment(), "MLFLOW_TRACKING_URI": "ftp://me:hunter2@host"},
    )
    assert said.returncode == 2 and "MLFLOW_TRACKING_URI" in said.stderr and "hunter2" not in said.stderr
    assert not (tmp_path / "r").exists()


def test_results_that_cannot_be_written_are_said_before_training(finished, tmp_path):
    (tmp_path / "file").write_text("")
    said = invoke("run", finished[0], "--results", tmp_path / "file", "--no-mlflow")
    assert said.exit_code == 1 and "--results DIR" in said.stderr and "Training" not in said.stderr


# Interruptions


@pytest.fixture
def slow(tmp_path):
    """An experiment of which a part is soon saved, and the rest takes long."""
    return write(tmp_path, model=QUICK_THEN_SLOW, seeds=2), tmp_path / "my results"


@pytest.mark.parametrize(
    ("name", "options", "shown"),
    [
        ("SIGINT", ["--no-mlflow"], "--no-mlflow"),
        pytest.param(
            "SIGTERM",
            ["--tracking-uri", "http://me:hunter2@127.0.0.1:9"],
            "--tracking-uri http://***@127.0.0.1:9",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_interruption_keeps_what_is_saved_and_says_how_to_go_on(slow, name, options, shown):
    path, results = slow
    with started("run", path, "--results", results, "--workers", "2", *options) as process:
        until(lambda: len(saved(results / "small")) >= 2)
        process.send_signal(getattr(signal, name))
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 130 and not stdout
        until(lambda: not processes(process.mark))
    assert stderr.splitlines()[-1] == (
        "Interrupted. Finished trials are saved. "
        f"To continue: clipbench run {path} --results '{results}' --workers 2 {shown}"
    )
    assert "Traceback" not in stderr
    kept = records(results / "small")
    assert len(kept) == 8 and set(kept["status"]) == {"finished"}
    assert json.loads(invoke("run", path, "--results", results, "--dry-run", "--json").stdout)["missing"] == 8


def test_a_second_ctrl_c_does_not_wait_for_a_checkpoint(tmp_path):
    path = write(tmp_path, model={**SLOW, "pause": 3.0}, seeds=1)
    with started("run", path, "--results", tmp_path / "r", "--no-mlflow", "--workers", "1") as process:
        until(lambda: process.stderr.readline().startswith("Training"))
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        time.sleep(1.5)
        assert process.poll() is None, "a step takes longer, and the checkpoint is after it"
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        stderr = process.communicate(timeout=20)[1]
        assert time.monotonic() - began < CHECKPOINT_SECONDS - 2
        until(lambda: not processes(process.mark), seconds=10)
    assert process.returncode == 130 and "Traceback" not in stderr


def test_ctrl_c_while_torch_is_still_loading_shows_no_traceback(finished, tmp_path):
    with started("run", finished[0], "--results", tmp_path / "r", "--no-mlflow") as process:
        until(lambda: len(processes(process.mark)) > 2)  # the one that loads torch has begun
        os.killpg(process.pid, signal.SIGINT)
        stderr = process.communicate(timeout=20)[1]
        until(lambda: not processes(process.mark), seconds=10)
    assert process.returncode == 130 and stderr.splitlines()[-1].startswith("Interrupted")
    assert "Traceback" not in stderr


def test_a_second_run_into_the_same_folder_is_told(slow):
    path, results = slow
    with started("run", path, "--results", results, "--no-mlflow") as first:
        until(lambda: saved(results / "small"))
        second = invoke("run", path, "--results", results, "--no-mlflow")
        assert second.exit_code == 1
        assert f"process {first.pid} is training into this folder" in second.stderr
        assert "--results DIR" in second.stderr
