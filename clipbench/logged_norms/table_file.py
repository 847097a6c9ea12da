"""Tables in files: CSV and other delimited text, JSON lines and Parquet."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from clipbench.errors import InputError, Place
from clipbench.logged_norms.logged_run import LoggedRun, run_of_table, table_of_rows

DELIMITERS = "\t;,"


def read_delimited(path: Path, text: str) -> LoggedRun:
    """Read text with a row in each line; without names in the first line, columns are called 1, 2, ..."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise InputError.at(Place(str(path)), "the file has no rows.")
    delimiter = next((sign for sign in DELIMITERS if sign in lines[0]), None)
    rows = list(csv.reader(lines, delimiter=delimiter)) if delimiter else [line.split() for line in lines]
    names = [name.strip() for name in rows[0]]
    if all(map(_is_plain_number, names)):
        names = [str(number) for number in range(1, len(names) + 1)]
    else:
        del rows[0]
    for row in rows:
        row += [""] * (len(names) - len(row))
    return run_of_table(str(path), {name: [row[at] for row in rows] for at, name in enumerate(names)})


def read_json_lines(path: Path, text: str) -> LoggedRun:
    """Read JSON with an object in each line."""
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise InputError.at(Place(str(path), number, 1), f"expected a JSON object, got {line.strip()[:40]!r}.")
            rows.append(row)
    return run_of_table(str(path), table_of_rows(rows))


def read_json(path: Path, document: Any) -> LoggedRun:
    """Read a JSON document that is a list of objects, or a list for each column."""
    if isinstance(document, list) and all(isinstance(row, dict) for row in document):
        return run_of_table(str(path), table_of_rows(document))
    if isinstance(document, dict) and all(isinstance(column, list) for column in document.values()):
        return run_of_table(str(path), _of_columns(path, document))
    raise InputError.at(Place(str(path)), "expected a list of objects, or a list for each column.")


def read_parquet(path: Path) -> LoggedRun:
    import pandas as pd

    try:
        frame = pd.read_parquet(path, dtype_backend="pyarrow")  # which tells a missing number from one that is NaN
    except (OSError, ValueError) as error:
        raise InputError.at(Place(str(path)), f"cannot be read as Parquet: {error}.") from error
    table = {str(name): [None if cell is pd.NA else cell for cell in frame[name]] for name in frame}
    return run_of_table(str(path), table)


def _of_columns(path: Path, document: dict[str, list[Any]]) -> dict[str, list[Any]]:
    if len({len(column) for column in document.values()}) > 1:
        raise InputError.at(Place(str(path)), "the lists of its columns are not equally long.")
    return document


def _is_plain_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
