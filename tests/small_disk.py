"""A disk of a few kilobytes, which is soon full and can be made larger."""

import os
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def small_disk(folder, kilobytes):
    """Mount such a disk at a new folder; yields a function that gives it another size."""
    folder.mkdir(exist_ok=True)
    if not hasattr(os, "geteuid") or os.geteuid() or _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder):
        pytest.skip("a disk can only be mounted by root")
    try:
        yield lambda size: _mount("-o", f"remount,size={size}k", folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*options):
    return subprocess.run(["mount", *map(str, options)], capture_output=True, check=False).returncode
