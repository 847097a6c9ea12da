"""Paths and modification stamps of the files that the YAML names."""

from __future__ import annotations

from pathlib import Path

from clipbench.core.trial import Component
from clipbench.errors import did_you_mean
from clipbench.plugins.registry import DataProblem, Plugin


def whole_path(path: str, folder: str) -> str:
    """Return the absolute path of a path relative to the YAML's folder; raise DataProblem if it does not exist."""
    whole = (Path(folder) / Path(path).expanduser()).resolve()
    if not whole.exists():
        near = sorted(each.name for each in whole.parent.glob("*")) if whole.parent.is_dir() else []
        raise DataProblem(f"there is no file {whole}. {did_you_mean(whole.name, near[:20])}".rstrip())
    return str(whole)


def stamps(component: Component, plugin: Plugin) -> tuple[tuple[int, int], ...]:
    """Return the time of modification and size of each file, and of all files in a folder."""
    named = [value for name, value in component.options if name in plugin.files and value]
    paths = [Path(component.folder) / Path(str(path)).expanduser() for path in named]
    files = [file for path in paths for file in (path, *sorted(path.rglob("*")))]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in (file.stat() for file in files if file.exists()))
