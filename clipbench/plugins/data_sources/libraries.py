"""Data sets of online libraries: downloaded by name once, then read from a cache."""

from __future__ import annotations

import os
import socket
import sys
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from clipbench.plugins.decorators import dataset
from clipbench.plugins.registry import DataProblem

# Seconds to wait for a server.
TIMEOUT = 10
# Names of the parts at Hugging Face.
SPLITS = {"train": ("train",), "val": ("validation", "val", "valid", "dev"), "test": ("test",)}


@dataset(library=True)
def openml(dataset: str, version: int | None = None, target: str = "", cache: str = "", yaml_folder: str = "") -> Any:
    """A data set of openml.org by name or number, such as `openml:mnist_784`; columns as for `csv`, pixels in [0, 1].

    sklearn.datasets.fetch_openml; `cache` is its data_home
    """
    from sklearn.datasets import fetch_openml, get_data_home

    home = str(Path(yaml_folder) / Path(cache).expanduser()) if cache else get_data_home()
    which: dict[str, Any] = {"name": dataset, "version": version or "active"}
    if dataset.isdigit():
        which = {"data_id": int(dataset)}
    call = ", ".join(f"{name}={value!r}" for name, value in which.items())
    try:
        with _short_timeout():
            found = fetch_openml(
                **which, target_column=target or "default-target", data_home=home, as_frame=True, n_retries=1, delay=0.1
            )
    except OSError as error:
        code = f"from sklearn.datasets import fetch_openml as f; f({call})"
        raise DataProblem(_not_available(f"{home}/openml", "openml.org", error, code)) from None
    except (ValueError, KeyError) as error:
        raise DataProblem(f"openml.org: {' '.join(str(error).split())}") from None
    return _pixels(found.data), found.target


def _pixels(frame: Any) -> Any:
    """Return columns that are all called pixel as images in [0, 1]."""
    if all(str(name).lower().startswith("pixel") for name in frame.columns):
        return frame.to_numpy(np.float32) / 255
    return frame


@dataset(library=True, changes=True)
def hf(
    dataset: str,
    config: str = "",
    inputs: str = "",
    target: str = "label",
    cache: str = "",
    yaml_folder: str = "",
    shares: Mapping[str, float] | None = None,
) -> Any:
    """A data set of the Hugging Face hub, such as `hf:ylecun/mnist`, or a folder, `hf:./folder`; images in [0, 1].

    datasets.load_dataset; `inputs` is a column of images or lists; the default is all columns of numbers
    """
    found = _load(dataset, config, cache, yaml_folder)
    parts = {
        part: found[name] for part, names in SPLITS.items() for name in names if name in found and len(found[name])
    }
    if "train" not in parts:
        raise DataProblem(f"it has no part `train`; its parts are {', '.join(found)}.")
    arrays = {part: _arrays(rows, inputs, target) for part, rows in parts.items()}
    if len(arrays) == 1:
        return arrays["train"]
    return {"val": (shares or {}).get("val", 0.2) or None, **arrays}


def _load(name: str, config: str, cache: str, yaml_folder: str) -> Any:
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(TIMEOUT))
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(TIMEOUT))
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    is_local = name.startswith((".", "/", "~"))
    if not is_local:
        _go_offline_without_connection()
    try:
        import datasets
    except ImportError:
        raise DataProblem("it needs the library `datasets`. Install it: pip install 'clipbench[hf]'") from None
    local = Path(yaml_folder) / Path(name).expanduser()
    if is_local and not local.exists():
        raise DataProblem(f"the folder {local.resolve()} does not exist.")
    home = str(Path(yaml_folder) / Path(cache).expanduser()) if cache else None
    where = str(local) if is_local else name
    try:
        with _short_timeout():
            return datasets.load_dataset(where, config or None, cache_dir=home)
    except (OSError, RuntimeError) as error:  # the hub raises subclasses of these
        call = f"{name!r}, {config!r}" if config else repr(name)
        code = f"from datasets import load_dataset as f; f({call})"
        folder = home or str(datasets.config.HF_DATASETS_CACHE)
        raise DataProblem(_not_available(folder, "huggingface.co", error, code)) from None
    except ValueError as error:
        raise DataProblem(f"huggingface.co: {' '.join(str(error).split())}") from None


def _arrays(rows: Any, inputs: str, target: str) -> tuple[Any, Any]:
    names = list(rows.column_names)
    for option, name in (("target", target), ("inputs", inputs)):
        if name and name not in names:
            raise DataProblem(f"{option}: there is no column {name!r}. Columns: {', '.join(names)}.")
    heavy = [name for name in names if name != target and _is_array(rows.features[name])]
    column = inputs or (heavy[0] if heavy else "")
    frame = rows.remove_columns(heavy).to_pandas()
    y = np.asarray(rows[target]) if hasattr(rows.features[target], "names") else frame[target]
    if not column:
        return frame.drop(columns=[target]), y
    return _stacked(rows[column], column), y


def _is_array(feature: Any) -> bool:
    return type(feature).__name__ not in ("Value", "ClassLabel")


def _stacked(values: Any, column: str) -> np.ndarray:
    """Stack images as [C, H, W] in [0, 1], and lists unchanged."""
    arrays = [np.asarray(value) for value in values]
    if len({array.shape for array in arrays}) > 1:
        raise DataProblem(f"{column}: all images or lists must have the same size.")
    x = np.stack(arrays)
    if x.dtype != np.uint8:
        return x
    return (x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)) / np.float32(255)


def _go_offline_without_connection() -> None:
    """Without a network, the hub's library would retry for half a minute."""
    if urllib.request.getproxies():
        return
    try:
        socket.create_connection(("huggingface.co", 443), TIMEOUT).close()
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"
        for module in ("huggingface_hub.constants", "datasets.config"):  # these have already read it
            if module in sys.modules:
                sys.modules[module].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def _not_available(folder: str, server: str, error: Exception, code: str) -> str:
    """Return the message for data that are neither in the cache nor available from the server."""
    reason = " ".join(str(error).split())[:160]
    return (
        f"it is not in the cache {folder}, and could not be downloaded from {server} ({reason}). "
        f'On a machine with a network, run: python -c "{code}", and copy that folder here.'
    )


@contextmanager
def _short_timeout() -> Iterator[None]:
    """Set a short timeout and hide the warnings of retries; the error at the end says what is wrong."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        socket.setdefaulttimeout(before)
