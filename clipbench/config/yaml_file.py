"""Read the text of a YAML file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from clipbench.errors import InputError, Place

SUFFIXES = (".yaml", ".yml")
MOST_BYTES = 1_000_000  # an experiment is one page that a person reads


def read_text(path: Path) -> str:
    """Return the text of a YAML file; raise InputError if it cannot be read."""
    place = Place(str(path))
    try:
        if path.is_dir():
            raise InputError.at(place, "is a folder, not an experiment.", _named("Its experiments", yaml_names(path)))
        if path.exists() and not path.is_file():  # a pipe would be waited for, a device may have no end
            raise InputError.at(place, "is not a regular file.", "Save the experiment in a file.")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise InputError.at(place, "there is no such file.", _near_files(path)) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError.at(place, f"cannot be read: {reason}.") from None
    if len(content) > MOST_BYTES:
        raise InputError.at(place, f"is larger than {MOST_BYTES:,} bytes.", "Make the experiment smaller.")
    return _decode(content, place)


def yaml_names(folder: Path) -> list[str]:
    """Return the names of the YAML files in a folder."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix in SUFFIXES)
    except OSError:
        return []


def _named(what: str, names: Iterable[str]) -> str:
    listed = ", ".join(list(names)[:8])
    return f"{what}: {listed}." if listed else ""


def _near_files(path: Path) -> str:
    names = yaml_names(path.parent)
    near = difflib.get_close_matches(path.name, names, n=1) or difflib.get_close_matches(
        path.stem, [Path(name).stem for name in names], n=1
    )
    return f"Did you mean `{near[0]}`?" if near else _named("Experiments in that folder", names)


def _decode(content: bytes, place: Place) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _position(content[: error.start].decode("utf-8-sig", "replace"))
        byte = f"0x{content[error.start]:02x}"
        where = Place(place.file, line, column)
        raise InputError.at(where, f"the byte {byte} is not UTF-8 text.", "Save the file as UTF-8.") from None
    _refuse_control_characters(text, place.file)
    return text


_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def _refuse_control_characters(text: str, file: str) -> None:
    found = _CONTROL.search(text)
    if found:
        line, column = _position(text[: found.start()])
        raise InputError.at(Place(file, line, column), f"the character U+{ord(found[0]):04X} is not allowed in YAML.")


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
