"""Clipping in several processes gives what one process gives."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


def test_rules_in_two_processes_equal_those_in_one(tmp_path):
    """Under DDP, FSDP2 of all parameters, of some of them, and of replicas."""
    command = [sys.executable, "-m", "tests.clipper.distributed_loops"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path / "store")], **pipes) for rank in range(2)]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(text.splitlines()[-1:] == ["equal"] for text in said), "\n".join(said)
