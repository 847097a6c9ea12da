"""Trials as event files of TensorBoard: `results/<name>/tensorboard/<arm>/seed-<n>-<id>/`.

A run has the series over steps and epochs, its options and its final measures, for TensorBoard's page HPARAMS too.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clipbench.core.measures import EPOCH_PREFIX
from clipbench.core.records import Records
from clipbench.errors import ClipbenchError
from clipbench.store.column_types import is_option

FOLDER = "tensorboard"
MOST_STEPS = 10_000  # of a series; longer ones are thinned evenly
NAMES = ("arm", "strategy", "threshold")  # options by short names
KEYS = ("id", "arm", "seed", "step", "epoch")


def check_installed() -> None:
    """Raise an error with the way out where TensorBoard is missing."""
    try:
        import tensorboard.summary  # noqa: F401
    except ImportError:
        remedy = "Run `pip install 'clipbench[tensorboard]'`, or leave out --tensorboard."
        raise ClipbenchError(f"--tensorboard needs the package tensorboard, which is not installed. {remedy}") from None


def write(folder: Path, records: Records) -> None:
    """Write the event files of trials that have ended, in place of earlier ones of the same trials."""
    for number, trial in enumerate(records.records["id"]):
        row = {name: values[number] for name, values in records.records.items() if values[number] is not None}
        _write_trial(folder / FOLDER / _folder(row), row, _of(records.epochs, trial), _of(records.steps, trial))


def _write_trial(folder: Path, row: Mapping[str, Any], epochs: Mapping[str, Any], steps: Mapping[str, Any]) -> None:
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for earlier in folder.glob("events.out.tfevents.*"):
        earlier.unlink()
    writer = EventFileWriter(str(folder))
    ended = time.time()
    for step, values in (*_rows(steps, "step", ""), *_rows(epochs, "epoch", EPOCH_PREFIX)):
        found = [summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        writer.add_event(event_pb2.Event(wall_time=ended, step=step, summary=summary_pb2.Summary(value=found)))
    for summary in _hyperparameters(row, ended):
        writer.add_event(event_pb2.Event(wall_time=ended, summary=summary))
    writer.close()


def _hyperparameters(row: Mapping[str, Any], ended: float) -> Iterator[Any]:
    """Yield the summaries that TensorBoard's page HPARAMS reads: options, status and final measures."""
    from google.protobuf import struct_pb2
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    start = plugin_data_pb2.SessionStartInfo(group_name=str(row["id"]), start_time_secs=ended - row.get("seconds", 0))
    options = {name: value for name, value in row.items() if is_option(name) or name in NAMES}
    for name, value in options.items():
        plain = value.item() if isinstance(value, np.generic) else value
        kind = "number_value" if isinstance(plain, int | float) and not isinstance(plain, bool) else "string_value"
        start.hparams[name].CopyFrom(struct_pb2.Value(**{kind: plain if kind == "number_value" else str(plain)}))
    failed = row["status"] == "failed"
    status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
    parts = {
        "_hparams_/session_start_info": plugin_data_pb2.HParamsPluginData(session_start_info=start, version=0),
        "_hparams_/session_end_info": plugin_data_pb2.HParamsPluginData(
            session_end_info=plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=ended), version=0
        ),
    }
    for tag, part in parts.items():
        about = summary_pb2.SummaryMetadata(
            plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="hparams", content=part.SerializeToString())
        )
        yield summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, metadata=about)])
    finals = {name: value for name, value in row.items() if "/" in name and not is_option(name) and _is_finite(value)}
    values = [summary_pb2.Summary.Value(tag=f"final/{name}", simple_value=value) for name, value in finals.items()]
    yield summary_pb2.Summary(value=values)


def _rows(table: Mapping[str, np.ndarray], key: str, prefix: str) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the number and the finite measures of each step or epoch."""
    numbers = table.get(key, np.zeros(0))
    every = max(1, math.ceil(len(numbers) / MOST_STEPS))
    columns = {f"{prefix}{name}": values for name, values in table.items() if name not in KEYS and _is_numeric(values)}
    for place in range(0, len(numbers), every):
        found = {tag: float(values[place]) for tag, values in columns.items() if _is_finite(values[place])}
        yield int(numbers[place]), found


def _of(table: Mapping[str, np.ndarray], trial: str) -> dict[str, np.ndarray]:
    rows = np.flatnonzero(table["id"] == trial) if table else np.zeros(0, int)
    return {name: values[rows] for name, values in table.items()}


def _folder(row: Mapping[str, Any]) -> str:
    arm = re.sub(r"[^\w.@=+-]+", "_", str(row["arm"])).strip("_.")[:100]
    return f"{arm or 'arm'}/seed-{row['seed']}-{str(row['id'])[:8]}"


def _is_numeric(values: np.ndarray) -> bool:
    return all(isinstance(value, int | float | np.number | None) for value in values[:1])


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)
