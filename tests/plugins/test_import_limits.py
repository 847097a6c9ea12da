"""A module of a stranger's that hangs, leaves or crashes while it is imported: an error at its line, soon."""

import time

import pytest

from clipbench.plugins.user_modules import IMPORT_VARIABLE
from tests.cli_helpers import environment, shell, write
from tests.thinning import one_of

CONTENTS = {
    "import os\nos._exit(0)\n": "the process that imports {file} ended with exit code 0. It has printed nothing.",
    "import sys\nsys.exit(0)\n": "cannot import './m.py:net': it exits the program. Move its main part under",
    "raise KeyboardInterrupt\n": "cannot import {file}: KeyboardInterrupt: .",
    "import time\ntime.sleep(1000)\n": "took longer for an import than CLIPBENCH_IMPORT_TIMEOUT, in <module> (m.py:2).",
    "import re\nre.match('(a+)+$', 'a' * 60 + 'b')\n": "took longer for an import than CLIPBENCH_IMPORT_TIMEOUT, in ",
    "import ctypes\nctypes.string_at(0)\n": "the process that imports {file} was killed by SIGSEGV.",
}


@pytest.mark.parametrize("content", one_of(2, CONTENTS))
@pytest.mark.parametrize("command", [["check"], pytest.param(["run", "--no-mlflow"], marks=pytest.mark.slow)])
def test_a_module_that_never_ends_well_is_an_error_at_its_line(tmp_path, command, content):
    path = write(tmp_path, model="./m.py:net")
    (tmp_path / "m.py").write_text(content)
    began = time.monotonic()
    said = shell(*command, path, cwd=tmp_path, env={**environment(), IMPORT_VARIABLE: "1"})
    assert said.returncode == 2 and "Traceback" not in said.stderr
    assert f"{path}:5:8: model: " in said.stderr and CONTENTS[content].format(file=tmp_path / "m.py") in said.stderr
    assert time.monotonic() - began < 60 and not (tmp_path / "results").exists()


def test_what_a_module_prints_is_cut_and_without_control_characters(tmp_path):
    path = write(tmp_path, model="./m.py:net")
    printed = "print('\\x1b[31mred' * 10_000_000)\n"
    (tmp_path / "m.py").write_text(
        f"from torch import nn\n{printed}def net(inputs, outputs): return nn.Linear(64, 10)\n"
    )
    said = shell("check", path)
    assert said.returncode == 0 and "\x1b" not in said.stderr and "\\x1b[31mred" in said.stderr
    assert len(said.stderr) < 10_000 and "red" not in said.stdout


def test_a_process_that_a_module_leaves_behind_is_not_waited_for(tmp_path):
    path = write(tmp_path, model="./m.py:net")
    (tmp_path / "m.py").write_text("import os, time\nif os.fork() == 0:\n    time.sleep(40)\nos._exit(0)\n")
    began = time.monotonic()
    with (tmp_path / "said").open("w") as said:  # which that process may keep open
        shell("check", path, capture_output=False, stdout=said, stderr=said)
    assert time.monotonic() - began < 30
    assert "ended with exit code 0. It has printed nothing." in (tmp_path / "said").read_text()
