"""Whatever a stranger's YAML holds, it is an experiment or is refused in short sentences: soon, and with little memory."""

import random
import re
from pathlib import Path

import pytest

from clipbench import config
from clipbench.cli.experiment_summary import summary, summary_lines, sweep_lines, sweep_values
from clipbench.config.resolved_yaml import resolved
from clipbench.errors import CONTROL, InputError
from clipbench.plugins.user_modules import Imports, imports
from tests.fuzz.limits import limited_memory, limited_time
from tests.fuzz.yaml_inputs import experiment_text

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.yaml"))
LONGEST = 4000  # characters of a line that a user sees


def try_file(path):
    """Do what `check --no-import` does, and read again what the experiment is written as."""
    try:
        with limited_time(), imports(Imports.LEFT_OUT):
            experiment = config.load_without_imports(path)
            lines = [*summary_lines(experiment), *sweep_lines(experiment)]
            summary(experiment), sweep_values(experiment)
            if not re.search(":[^ \n]", path.read_text(encoding="utf-8-sig")):  # it names no function of a user
                config.load(path)
    except InputError as error:
        assert error.problems
        assert all(problem.place.file for problem in error.problems)
        seen = str(error).splitlines()
    else:
        seen = [line for each in lines for line in each.splitlines()]
        path.write_text(resolved(experiment), encoding="utf-8")
        assert config.load_without_imports(path).size == experiment.size
    assert not any(CONTROL.search(line) for line in seen)
    assert all(len(line) <= LONGEST for line in seen), max(map(len, seen))


def try_seed(seed, folder):
    text = experiment_text(random.Random(seed))
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        try_file(path)
    except Exception as error:
        error.add_note(f"Of seed {seed}. Mend it, and save this in tests/fuzz/corpus/:\n{text[:3000]}")
        raise


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_once_broke_is_refused_or_read(path, tmp_path):
    copy = tmp_path / "experiment.yaml"
    copy.write_bytes(path.read_bytes())
    with limited_memory():
        try_file(copy)


def test_spoilt_experiments_are_refused_or_read(tmp_path):
    with limited_memory():
        for seed in range(1000):
            try_seed(seed, tmp_path)


@pytest.mark.slow
def test_many_spoilt_experiments_are_refused_or_read(tmp_path):
    first = random.randrange(10**9)
    with limited_memory():
        for seed in range(first, first + 10_000):
            try_seed(seed, tmp_path)
