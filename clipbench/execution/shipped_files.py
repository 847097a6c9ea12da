"""The user's own files that trials need, sent to other machines: there they lie in a folder named after their content.

They are the files of own functions with what these import, and data files that are named relative to the YAML. What
pip installed, and what is named by an absolute path, must be on every machine.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from clipbench.core.trial import Component, Training, Trial
from clipbench.errors import ClipbenchError
from clipbench.plugins import registry
from clipbench.plugins.imported_files import own_files, own_module
from clipbench.store.atomic_files import write_atomically


def needed_files(trials: Iterable[Trial]) -> set[str]:
    """Return the absolute paths of the files that trials need."""
    components = {(each, each.folder): each for trial in trials for each in _components(trial)}
    return {str(path) for each in components.values() for path in _files(each)}


class ShippedFiles:
    """Files that came from another machine."""

    def __init__(self, contents: Mapping[str, bytes], folder: Path | None = None) -> None:
        hashes = [hashlib.sha256(path.encode() + b"\0" + content).digest() for path, content in contents.items()]
        self._contents = contents
        self._root = (folder or _own_folder()) / hashlib.sha256(b"".join(sorted(hashes))).hexdigest()[:16]

    def unpack(self, import_path: Iterable[str]) -> None:
        """Write the files, and let modules be found as where they came from."""
        for path, content in self._contents.items():
            here = self._here(path)
            if not here.exists() or here.read_bytes() != content:
                here.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(here, content)
        sys.path[:0] = [str(self._here(folder)) for folder in import_path if self._here(folder).is_dir()]

    def relocated(self, value: Any) -> Any:
        """Return a trial, or a part of one, whose functions and data are looked up here. Its id is the same."""
        if isinstance(value, tuple):
            return tuple(map(self.relocated, value))
        if not isinstance(value, Trial | Training | Component):
            return value
        changes: dict[str, Any] = {each.name: self.relocated(getattr(value, each.name)) for each in fields(value)}
        if isinstance(value, Component) and value.folder:
            changes["folder"] = str(self._here(value.folder))
        return replace(value, **changes)

    def _here(self, path: str) -> Path:
        there = Path(path)
        return self._root / there.relative_to(there.anchor)


def _own_folder() -> Path:
    """Return a folder for files of this user, to which nobody else can write."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"clipbench-files-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and (found.st_uid != user or found.st_mode & 0o022)):
        raise ClipbenchError(f"{folder} belongs to somebody else, who could change what is run from it. Remove it.")
    return folder


def _components(value: Any) -> Iterator[Component]:
    if isinstance(value, Component):
        yield value
    if isinstance(value, tuple):
        for item in value:
            yield from _components(item)
    elif isinstance(value, Trial | Training | Component):
        for each in fields(value):
            yield from _components(getattr(value, each.name))


def _files(component: Component) -> Iterator[Path]:
    """Yield the files of a component: its function with what it imports, and its data."""
    where, _, name = component.name.rpartition(":")
    folder = Path(component.folder)
    if where.endswith(".py"):
        yield from own_files(folder / where)
    elif name and where not in registry.catalogue("data"):
        for file in own_module(where):
            yield from own_files(file)
    known = registry.catalogue("data").get(where or name)
    for option in known.files if known else ():
        given = component.as_dict().get(option)
        if given and not Path(str(given)).expanduser().is_absolute():
            found = (folder / str(given)).resolve()
            yield from (file for file in (sorted(found.rglob("*")) if found.is_dir() else [found]) if file.is_file())
