"""Which names an experiment may have: none of those that clipbench uses itself in the folder of all results.

Who writes there takes the name from here, so that no experiment can be called like a file of clipbench.
"""

from __future__ import annotations

import re

DATABASE = "mlflow.db"
SQLITE_FILES = ("-journal", "-wal", "-shm", "")  # after the name of a database; the database is the last
ARTIFACTS = "mlartifacts"
COMBINED = ("report.md", "report.html")  # of several experiments

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
LONGEST = 100
MADE_OF = f"a name must consist of up to {LONGEST} letters, digits, `.`, `_` and `-`, the first a letter or digit"
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # no file of Windows can be called so
EXPERIMENT_FILE = re.compile(r".*\.ya?ml")


def name_problem(name: str) -> str:
    """Return why an experiment cannot have this name; empty if it can. Some file systems ignore case."""
    plain = name.lower()
    if not re.fullmatch(NAME, name):
        return MADE_OF
    if plain == ARTIFACTS or re.fullmatch(rf"{re.escape(DATABASE)}([-.].*)?", plain):
        return "this name is reserved for MLflow's store in the results folder"
    if plain in COMBINED:
        return "this name is reserved for the report of several experiments in the results folder"
    if DEVICES.fullmatch(plain) or plain.endswith("."):
        return "no folder can have this name on Windows"
    if EXPERIMENT_FILE.fullmatch(plain):
        return "a name must not end as that of an experiment's file"
    return ""


def near_name(text: str) -> str:
    """Return a valid name that is near to a text: the text itself if it is one."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", text)[:LONGEST].lstrip("._-").rstrip(".") or "experiment"
    if name_problem(name):
        name = name.replace(".", "-")
    return f"{name}-1" if name_problem(name) else name
