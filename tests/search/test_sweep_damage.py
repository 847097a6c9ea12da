"""What a sweep keeps may be damaged, lost or refused by the disk: it says so, and ends as if nothing had happened."""

import json
import shutil

import pytest

from clipbench.errors import ClipbenchError
from clipbench.search.storage import JOURNAL, storage_at
from clipbench.store.atomic_files import DAMAGED
from tests.cli_helpers import assert_same, invoke, saved, write
from tests.small_disk import small_disk
from tests.sweep_helpers import bowl, ledger, smooth, study, told

SEARCH = {
    "data": {"name": "digits", "limit": 150},
    "optimizer": {"name": "sgd", "lr": 1.0},
    "train": {"epochs": 5, "batch_size": 32},
    "clip": ["none", {"name": "norm", "threshold": {"log": [0.01, 100], "points": 3}}],
    "seeds": 2,
    "sweep": {"trials": 12, "seeds": 2, "batch": 5, "confirm_seeds": 2},
}
FILE = "sweep.json"


def sweep(path, results, *options):
    result = invoke("sweep", path, "--results", results, "--no-mlflow", "--workers", "1", *options)
    assert result.exit_code == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    path, results = write(root, **SEARCH), root / "results"
    sweep(path, results)
    return path, results


@pytest.fixture
def swept(whole, tmp_path):
    """The file, a copy of its results, and the folder that they should be equal to."""
    path, results = whole
    shutil.copytree(results, tmp_path / "results")
    return path, tmp_path / "results", results


def lines_of(results):
    return (results / "small" / JOURNAL).read_bytes().splitlines(keepends=True)


def line(number):
    return lambda lines: [*lines[:number], *lines[number + 1 :]]


def changed(lines):
    """A score that is another one, in a line that is still one of Optuna's."""
    number = next(at for at, each in enumerate(lines) if b'"outcome"' in each)
    return [*lines[:number], lines[number].replace(b'"scores":[0.', b'"scores":[1.'), *lines[number + 1 :]]


def foreign(lines):
    other = json.dumps({"op_code": 4, "worker_id": "x", "study_id": 0, "datetime_start": None, "state": 4}).encode()
    return [*lines[:20], other + b"\n", *lines[20:]]


# What happens to the lines, and whether it can be seen.
HOLES = {
    "first line lost": (line(0), True),
    "line lost": (line(20), True),
    "lines lost": (lambda lines: lines[:10] + lines[30:], True),
    "line cut": (lambda lines: [*lines[:20], lines[20][:30], *lines[21:]], True),
    "line changed": (changed, True),
    "foreign line": (foreign, True),
    "garbage": (lambda lines: [*lines[:20], b"\xff\x00\r\n", *lines[20:]], True),
    "lines swapped": (lambda lines: [*lines[:20], lines[21], lines[20], *lines[22:]], True),
    "no text": (lambda lines: [b"\x00" * 4096], False),
    "end lost": (lambda lines: lines[: len(lines) // 2], False),
    "emptied": (lambda lines: [], False),
}


def but_slow(*fast):
    """All of these in the slow run."""
    return lambda names: [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("hole", but_slow("line lost")(HOLES))
def test_a_journal_with_a_hole_is_set_aside_and_nothing_is_trained_again(swept, hole):
    path, results, expected = swept
    change, is_seen = HOLES[hole]
    damaged = b"".join(change(lines_of(results)))
    (results / "small" / JOURNAL).write_bytes(damaged)
    said = sweep(path, results, "--json")
    assert json.loads(said.stdout)["trained"] == 0
    (aside,) = [each for each in said.stderr.splitlines() if JOURNAL + DAMAGED in each] if is_seen else [""]
    assert bool(aside) == is_seen and "Traceback" not in said.stderr
    if is_seen:
        assert (results / "small" / (JOURNAL + DAMAGED)).read_bytes() == damaged
    assert f"that {FILE} has: they are taken from there, and no trial" in said.stderr
    assert_as_before(path, results, expected)


def searched_bowl(folder):
    """A study of three rounds, and what it knows."""
    searched = study(bowl(folder, {"trials": 30, "batch": 5}))
    for _ in range(3):
        minimise_round(searched)
    return searched


def minimise_round(searched):
    for point in searched.take_over() or searched.ask(5):
        searched.tell(point, told(smooth(point.values["threshold"])))


@pytest.mark.parametrize("hole", HOLES)
def test_a_study_with_a_hole_in_its_journal_has_its_points_again_and_asks_for_the_same(tmp_path, hole):
    searched, notes = searched_bowl(tmp_path), []
    known, journal = searched.tried(), tmp_path / JOURNAL
    journal.write_bytes(b"".join(HOLES[hole][0](journal.read_bytes().splitlines(keepends=True))))
    again = study(tmp_path / "bowl.yaml", storage_at(None).open(tmp_path, notes.append))
    assert [f"it was renamed to {JOURNAL}{DAMAGED}" in note for note in notes] == [True] * HOLES[hole][1]
    again.restore(known)
    while any(each.state == "running" for each in again.tried()):
        minimise_round(again)
    assert again.tried() == known
    (tmp_path / "other").mkdir()
    undisturbed = searched_bowl(tmp_path / "other")
    assert [each.values for each in again.ask(5)] == [each.values for each in undisturbed.ask(5)]


def test_a_journal_that_changes_during_a_search_is_said(tmp_path):
    searched, journal = searched_bowl(tmp_path), tmp_path / JOURNAL
    journal.write_bytes(b"".join(line(5)(journal.read_bytes().splitlines(keepends=True))))
    with pytest.raises(
        ClipbenchError, match=r"was changed by another program during the search\. Run the same command"
    ):
        searched.ask(4)


def assert_as_before(path, results, expected):
    assert ledger(results, "small") == ledger(expected, "small")
    assert_same(results / "small", expected / "small")
    assert len(saved(results / "small")) == len(saved(expected / "small"))
    again = sweep(path, results, "--json")
    assert json.loads(again.stdout)["trained"] == 0 and DAMAGED not in again.stderr and "lacks" not in again.stderr


@pytest.mark.parametrize("moment", [0.6, pytest.param(0.3, marks=pytest.mark.slow)])
def test_without_the_end_of_the_journal_and_sweep_json_the_same_points_are_asked_for_again(swept, moment):
    path, results, expected = swept
    lines = lines_of(results)
    (results / "small" / JOURNAL).write_bytes(b"".join(lines[: round(moment * len(lines))]))
    (results / "small" / FILE).unlink()
    assert json.loads(sweep(path, results, "--json").stdout)["trained"] == 0
    assert_as_before(path, results, expected)


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["median", "hyperband", "wilcoxon", "none"])
def test_whatever_line_was_the_last_that_a_killed_process_wrote_the_search_is_the_same(tmp_path, pruner):
    path, expected = write(tmp_path, **SEARCH | {"sweep": SEARCH["sweep"] | {"pruner": pruner}}), tmp_path / "whole"
    sweep(path, expected)
    lines = lines_of(expected)
    for count in range(len(lines)):
        results = tmp_path / f"{count}"
        shutil.copytree(expected, results)
        (results / "small" / JOURNAL).write_bytes(b"".join(lines[:count]))
        (results / "small" / FILE).unlink()
        assert json.loads(sweep(path, results, "--json").stdout)["trained"] == 0
        assert ledger(results, "small") == ledger(expected, "small")


@pytest.mark.slow
def test_more_points_after_a_hole_are_those_that_there_would_have_been(swept, tmp_path):
    path, results, expected = swept
    lines = lines_of(results)
    (results / "small" / JOURNAL).write_bytes(b"".join([*lines[:20], *lines[21:]]))
    other = tmp_path / "other"
    shutil.copytree(expected, other)
    for folder in (results, other):
        sweep(path, folder, "--trials", "20")
    assert ledger(results, "small") == ledger(other, "small")


BROKEN = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "no JSON": lambda text: "what I had for lunch",
    "another type": lambda text: text.replace('"trials": 12', '"trials": "many"'),
    "a key is missing": lambda text: text.replace('"label"', '"lable"', 1),
    "a list": lambda text: "[]",
}


@pytest.mark.parametrize("command", but_slow("report")(["report", "sweep"]))
@pytest.mark.parametrize("broken", but_slow("cut")(BROKEN))
def test_a_damaged_sweep_json_is_set_aside_and_written_again(swept, broken, command):
    path, results, expected = swept
    file = results / "small" / FILE
    text = BROKEN[broken](file.read_text())
    file.write_text(text)
    said = sweep(path, results) if command == "sweep" else invoke("report", path, "--results", results)
    assert said.exit_code == 0, said.stderr
    assert "as the search found it, on fresh seeds" in " ".join(said.stdout.split())
    (told,) = [each for each in said.stderr.splitlines() if FILE in each]
    assert f"{FILE} is damaged (" in told and f"was renamed to {FILE}{DAMAGED}, and " in told
    assert (results / "small" / (FILE + DAMAGED)).read_text() == text
    assert ledger(results, "small") == ledger(expected, "small")
    again = invoke("report", "small", "--results", results)
    assert again.exit_code == 0 and DAMAGED not in again.stderr


def test_a_lost_sweep_json_is_written_again_by_a_report_of_the_same_search_alone(swept, tmp_path):
    path, results, expected = swept
    (results / "small" / FILE).unlink()
    other = write(tmp_path / "other", **SEARCH | {"clip": ["none", {"name": "norm", "threshold": {"log": [1, 10]}}]})
    assert "fresh seeds" not in invoke("report", other, "--results", results).stdout
    assert not (results / "small" / FILE).exists()
    said = invoke("report", path, "--results", results)
    assert f"{FILE} is missing, and was written again from {JOURNAL}." in said.stderr
    assert ledger(results, "small") == ledger(expected, "small")


@pytest.mark.slow
def test_where_the_journal_is_lost_too_a_report_says_what_to_type(swept):
    path, results, expected = swept
    (results / "small" / JOURNAL).unlink()
    (results / "small" / FILE).write_text("{")
    said = invoke("report", path, "--results", results)
    assert said.exit_code == 0
    assert f"Run `clipbench sweep {path}`, which writes it again and trains no trial twice." in said.stderr
    assert json.loads(sweep(path, results, "--json").stdout)["trained"] == 0
    assert ledger(results, "small") == ledger(expected, "small")


SIZES = [64, *(pytest.param(size, marks=pytest.mark.slow) for size in range(4, 200, 4))]


@pytest.mark.parametrize("kilobytes", SIZES)
def test_a_disk_that_is_full_is_said_and_the_sweep_goes_on_once_there_is_space(whole, tmp_path, kilobytes):
    path, expected = whole
    results = tmp_path / "disk" / "results"
    with small_disk(tmp_path / "disk", kilobytes) as resize:
        full = tmp_path / "disk" / "full"
        full.write_bytes(b"0" * 1024 * kilobytes)
        for _ in range(2):
            said = invoke("sweep", path, "--results", results, "--no-mlflow", "--workers", "1")
            assert (said.exit_code == 1 and said.exception is None) or isinstance(said.exception, SystemExit)
            (last,) = said.stderr.splitlines()[-1:]
            assert "cannot be written (No space left on device). Free some disk space and run the same command" in last
            full.unlink(missing_ok=True)
        resize(10_000)
        sweep(path, results)
        assert ledger(results, "small") == ledger(expected, "small")
        assert_same(results / "small", expected / "small")
