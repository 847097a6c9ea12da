"""The files of the user's own that a Python file imports, found in its text: nothing is imported."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# Folders of packages that pip installed, and of Python and clipbench themselves.
INSTALLED = {"site-packages", "dist-packages"}
STANDARD = (Path(__file__).parents[1], Path(os.__file__).parent)


def is_installed(file: Path) -> bool:
    """Whether a file belongs to Python, to clipbench, or to a package that pip installed."""
    return not INSTALLED.isdisjoint(file.parts) or any(map(file.is_relative_to, STANDARD))


def digest_with_imports(file: Path) -> str:
    """Return a hash of a file and of all files of the user's own that it imports, directly or not."""
    contents = [path.read_bytes() for path in own_files(file)]
    return hashlib.sha256(b"\0".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()[:16]


def own_files(file: Path) -> list[Path]:
    """Return a file and all files of the user's own that it imports, sorted by their paths after the first."""
    file = file.resolve()
    roots = [file.parent, *_import_path()]
    found, waiting = {file}, [file]
    while waiting:
        path = waiting.pop()
        new = set(_imports(path, list(dict.fromkeys(roots)))) - found
        found |= new
        waiting.extend(new)
    return [file, *sorted(found - {file})]


def own_module(name: str) -> list[Path]:
    """Return the files of a module of the user's own, and of the packages that it is in; none if it is installed."""
    return list(_files(name.split("."), _import_path()))


def _import_path() -> list[Path]:
    return [path for each in sys.path if not is_installed(path := Path(each or ".").resolve())]


def _imports(file: Path, roots: Sequence[Path]) -> Iterator[Path]:
    """Yield the files that the import statements of a file name, wherever in the file they are."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):  # its import says so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(alias.name.split("."), roots)
        elif isinstance(node, ast.ImportFrom):
            above = file.parents[node.level - 1 : node.level] if node.level else roots
            parts = node.module.split(".") if node.module else []
            for alias in node.names:  # a name may be a module
                yield from _files([*parts, alias.name], above)


def _files(parts: Sequence[str], roots: Sequence[Path]) -> Iterator[Path]:
    """Yield the files of a dotted name in the first folder that has it: the packages on the way, and the module."""
    for root in roots:
        found, folder = [], root
        for part in parts:
            candidates = (folder / f"{part}.py", folder / part / "__init__.py")
            found += [path.resolve() for path in candidates if path.is_file()]
            folder /= part
        if found:
            yield from (path for path in found if not is_installed(path))
            return
