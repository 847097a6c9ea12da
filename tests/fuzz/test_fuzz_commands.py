"""Whatever is typed after `clipbench`, there is an answer or a message: no traceback, and no long wait."""

import os
import random
import signal
import warnings

import pytest

from clipbench.errors import CONTROL
from tests.cli_helpers import invoke, write
from tests.fuzz.command_inputs import command_line
from tests.fuzz.limits import limited_memory, limited_time


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with an experiment, its results and files that are none."""
    write(tmp_path, "good.yaml", name="good", seeds=1, train={"epochs": 1})
    assert (
        invoke("run", "--no-mlflow", "--quiet", tmp_path / "good.yaml", "--results", tmp_path / "results").exit_code
        == 0
    )
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def try_seed(seed, folder):
    words = command_line(random.Random(seed), folder)
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with limited_time(), warnings.catch_warnings():
            result = invoke(*words)
        for number, handler in kept.items():
            signal.signal(number, handler)
        said = result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert result.exit_code in (0, 1, 2), said
        assert "Traceback" not in said
        assert not CONTROL.search(said)
        assert all(len(line) <= 4000 for line in result.stderr.splitlines())
    except BaseException as error:
        error.add_note(f"Of seed {seed}: {words}\n{(folder / 'spoilt.yaml').read_text()[:1000]}")
        raise


def test_any_words_get_an_answer_or_a_message(folder):
    with limited_memory():
        for seed in range(100):
            try_seed(seed, folder)


@pytest.mark.slow
def test_many_words_get_an_answer_or_a_message(folder):
    first = random.randrange(10**9)
    with limited_memory():
        for seed in range(first, first + 2000):
            try_seed(seed, folder)
