"""The files that a plan depends on: data files and the user's own modules. A plan is valid while they are unchanged."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from clipbench.config import Experiment
from clipbench.plugins import registry, user_modules
from clipbench.plugins.imported_files import is_installed

Digests = Mapping[str, str]  # of each file or folder, by its absolute path

MISSING = ""  # the digest of a file that does not exist
CLIPBENCH = Path(__file__).parents[1]


def sources(experiment: Experiment, began: int) -> Digests | None:
    """Return the digests of the files that an experiment depends on, after its data are loaded and models are built.

    Return None if they cannot be determined: a user's own data function may read any file, the data of a server may
    change, and a file that was written after planning `began` (in ns since 1970) may differ from what was read.
    """
    plugins = {data: registry.of("data", data) for data in experiment.data if data}
    if any(plugin.source or plugin.facts.get("changes") for plugin in plugins.values()):
        return None
    named = [
        Path(data.folder) / Path(str(data[option])).expanduser()
        for data, plugin in plugins.items()
        for option in plugin.files
        if data.as_dict().get(option)
    ]
    paths = {path.resolve() for path in (*named, *_own_modules())}
    if any(_written(file) >= began for path in paths for file in _files(path)):
        return None
    return digests(map(str, paths))


def digests(paths: Iterable[str]) -> Digests:
    """Return the digest of each file or folder."""
    return {path: _digest(Path(path)) for path in sorted(paths)}


def version() -> str:
    """Return the digest of clipbench's own code, which an edit changes."""
    code = sorted(CLIPBENCH.rglob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in code)).hexdigest()


def _digest(path: Path) -> str:
    if not path.is_dir():
        if not path.is_file():
            return MISSING
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    listed = [f"{file.relative_to(path).as_posix()} {_digest(file)}" for file in _files(path)]
    return hashlib.sha256("\n".join(listed).encode(errors="surrogateescape")).hexdigest()


def _files(path: Path) -> list[Path]:
    """Return the file itself, or all files of a folder."""
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


def _written(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def _own_modules() -> Iterator[Path]:
    """Yield the files of imported modules that neither Python nor pip installed: the user's own and their imports."""
    # Read their dictionaries: `getattr` on a lazy module may import a library.
    modules = {name: getattr(module, "__dict__", {}) for name, module in list(sys.modules.items())}
    packages = {name.partition(".")[0] for name, facts in modules.items() if user_modules.SOURCE in facts}
    for name, facts in modules.items():
        file = facts.get("__file__")
        is_main = name in ("__main__", "__mp_main__")  # the command itself
        if file and not is_main and (name.partition(".")[0] in packages or not is_installed(Path(file))):
            yield Path(file)
