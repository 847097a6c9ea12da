"""What `--from` names, found by its content: which reader reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from clipbench.config.yaml_file import SUFFIXES
from clipbench.errors import InputError, Place, did_you_mean
from clipbench.logged_norms.event_files import SIGN, has_event_files, read_event_files
from clipbench.logged_norms.logged_run import LoggedRun
from clipbench.logged_norms.mlflow_history import read_mlflow_run, run_id
from clipbench.logged_norms.results_folder import read_results, results_folder_of, results_folders_in
from clipbench.logged_norms.table_file import read_delimited, read_json, read_json_lines, read_parquet
from clipbench.logged_norms.trainer_state import is_trainer_state, newest_state, read_trainer_state

PARQUET, SQLITE = b"PAR1", b"SQLite format 3\0"
TABLES = (".csv", ".tsv", ".parquet", ".jsonl")  # files of a folder that may be a log
KINDS = (
    "a table (CSV, TSV, Parquet, JSON lines), `trainer_state.json` of Hugging Face, a folder or file of TensorBoard, "
    "a results folder of clipbench, or the id of a run in MLflow"
)


def open_log(source: str, results: Path, tracking_uri: Callable[[], str]) -> list[LoggedRun]:
    """Return the runs of a log. `results` is the folder of all results; the URI is asked for where it is needed."""
    path = Path(source)
    place = Place(source)
    try:
        if path.is_dir():
            return _open_folder(path, place)
        if path.is_file():
            return _open_file(path, place)
    except OSError as error:
        raise InputError.at(place, f"cannot be read: {error.strerror or error}.") from error
    if id_ := run_id(source):
        return [read_mlflow_run(id_, tracking_uri())]
    if len(path.parts) == 1 and results_folder_of(results / source):
        return read_results(results / source)
    names = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    remedy = did_you_mean(path.name, names) if names else ""
    raise InputError.at(place, f"there is no such file, folder or run. Expected {KINDS}.", remedy[:200])


def _open_folder(path: Path, place: Place) -> list[LoggedRun]:
    if folder := results_folder_of(path):
        return read_results(folder)
    if state := newest_state(path):
        return _open_file(state, place)
    if has_event_files(path):
        return read_event_files(path)
    names = results_folders_in(path)
    if len(names) == 1:
        return read_results(path / names[0])
    if names:
        raise InputError.at(place, f"has the results of {len(names)} experiments.", f"Name one: {', '.join(names)}.")
    tables = sorted(each for each in path.iterdir() if each.suffix in TABLES)
    if len(tables) == 1:
        return _open_file(tables[0], place)
    if tables:
        named = ", ".join(each.name for each in tables)
        raise InputError.at(place, f"has {len(tables)} tables: {named}.", "Name one of them.")
    raise InputError.at(place, f"has no log that is known. Expected {KINDS}.")


def _open_file(path: Path, place: Place) -> list[LoggedRun]:
    with path.open("rb") as file:
        start = file.read(256)
    if not start.strip():
        raise InputError.at(place, "the file is empty.")
    if folder := results_folder_of(path):
        return read_results(folder)
    if start.startswith(PARQUET):
        return [read_parquet(path)]
    if SIGN in start:
        return read_event_files(path)
    if start.startswith(SQLITE):
        remedy = f"Name one of its runs: `--from ID --tracking-uri sqlite:///{path.absolute()}`."
        raise InputError.at(place, "is a database.", remedy)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InputError.at(place, f"is no log that is known. Expected {KINDS}.")
    if path.suffix in SUFFIXES:
        raise InputError.at(place, "is an experiment, not a log.", f"Train it: `clipbench pilot {path}`.")
    return [_read_text(path, text)]


def _read_text(path: Path, text: str) -> LoggedRun:
    if not text.lstrip().startswith(("{", "[")):
        return read_delimited(path, text)
    try:
        document = json.loads(text)
    except ValueError:
        return read_json_lines(path, text)
    if is_trainer_state(document):
        return read_trainer_state(path, document)
    is_line = isinstance(document, dict) and not any(isinstance(each, list) for each in document.values())
    return read_json_lines(path, text) if is_line and "\n" not in text.strip() else read_json(path, document)
