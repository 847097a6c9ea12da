"""Whether a results folder may be written: it is checked before anything is trained, or fetched, or reported."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from clipbench.errors import InputError, Place
from clipbench.store.atomic_files import writing


def check_folder(folder: Path) -> None:
    """Raise an error if `results/<experiment>` cannot be written, or has links that lead out of the results folder."""
    check_links(folder)
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    inside = [entry for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    for path in (nearest, *inside):
        with writing(path):
            if not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "it is read-only, or belongs to somebody else")


def check_links(folder: Path) -> None:
    """Raise InputError if `results/<experiment>`, or what is in it, is a link that leads out of the results folder."""
    check_no_links([folder, *(folder.iterdir() if folder.is_dir() else ())], folder.parent)


def check_no_links(paths: Iterable[Path], folder: Path) -> None:
    """Raise InputError for the first path that leads out of a folder by a link: a stranger may have made it."""
    for path in paths:
        if leads_out(path, folder):
            text = f"is a link to {path.resolve()}, outside of {folder}."
            raise InputError.at(Place(str(path)), text, "Replace it by what it leads to, or choose `--results DIR`.")


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a path leads out of a folder by symbolic links. The folder itself may be one."""
    return not path.resolve().is_relative_to(folder.resolve())
