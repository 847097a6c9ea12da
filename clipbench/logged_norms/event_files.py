"""Scalars in the event files of TensorBoard, which `tensorboard` reads without TensorFlow."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from clipbench.errors import InputError, Place
from clipbench.logged_norms.logged_run import LoggedRun, Series, split_at_restarts

SIGN = b"brain.Event:"  # in the first record of an event file
FILES = "*tfevents*"
FLOATS = (1, 2)  # DT_FLOAT and DT_DOUBLE of TensorFlow
ALL = {"scalars": 0, "tensors": 0}  # no sampling


def has_event_files(folder: Path) -> bool:
    return next(folder.rglob(FILES), None) is not None


def read_event_files(path: Path) -> list[LoggedRun]:
    """Read an event file, or every folder below a folder that has event files: each is a run."""
    if importlib.util.find_spec("tensorboard") is None:
        remedy = "Install it with `pip install 'clipbench[tensorboard]'`."
        raise InputError.at(Place(str(path)), "event files are read by tensorboard, which is not installed.", remedy)
    if path.is_file():
        with TemporaryDirectory() as folder:  # tensorboard wants a name that says what it is
            link = Path(folder, "tfevents")
            link.symlink_to(path.absolute())
            return [_read_run(link, str(path))]
    return [_read_run(folder, str(folder)) for folder in sorted({file.parent for file in path.rglob(FILES)})]


def _read_run(path: Path, name: str) -> LoggedRun:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path), size_guidance=ALL)
    events.Reload()
    tags = events.Tags()
    known = dict.fromkeys(tags["scalars"], events.Scalars)
    # TensorFlow 2 logs scalars as tensors without dimensions.
    known |= {name: events.Tensors for name in tags["tensors"] if _is_number(events.Tensors(name)[0].tensor_proto)}

    def read(column: str) -> list[Series]:
        found = list(_points(known[column](column)))
        steps, values = np.array(found, dtype=np.float64).reshape(-1, 2).T
        return split_at_restarts(Series(values, steps))

    return LoggedRun(name, tuple(known), read)


def _points(events: Any) -> Iterator[tuple[int, float]]:
    for event in events:
        if hasattr(event, "value"):
            yield event.step, event.value
        else:
            from tensorboard.util.tensor_util import make_ndarray

            yield event.step, float(make_ndarray(event.tensor_proto))


def _is_number(tensor: Any) -> bool:
    return not tensor.tensor_shape.dim and tensor.dtype in FLOATS
