"""The MLflow run that the caller has opened around clipbench: runs of clipbench are nested under it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from clipbench.errors import InputError
from clipbench.tracking.uri import validate_uri


@dataclass(frozen=True)
class ActiveRun:
    """A run, and the tracking URI where it is."""

    uri: str
    id: str


def active_run() -> ActiveRun | None:
    """Return the active run of this process, or the one that `MLFLOW_RUN_ID` names; MLflow is not imported for it.

    Return None too if it is at a place that clipbench does not write to, such as a folder of files.
    """
    mlflow = sys.modules.get("mlflow")
    run = mlflow.active_run() if mlflow else None
    if mlflow and run:
        uri, found = mlflow.get_tracking_uri(), run.info.run_id
    else:
        uri, found = os.environ.get("MLFLOW_TRACKING_URI", ""), os.environ.get("MLFLOW_RUN_ID", "")
    try:
        return ActiveRun(validate_uri(uri), found) if found else None
    except InputError:
        return None
