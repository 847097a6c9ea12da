"""Arrays in NumPy files: one .npz file, or a folder of .npy files, which are mapped to memory."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from clipbench.plugins.decorators import dataset
from clipbench.plugins.registry import DataProblem, File

# Names of the arrays of a part: those of MedMNIST, of Keras, and ours.
LAYOUTS = (("{}_images", "{}_labels"), ("x_{}", "y_{}"), ("{}_x", "{}_y"))
PARTS = ("train", "val", "test")


@dataset()
def npz(
    path: File, inputs: str = "x", targets: str = "y", flat: bool = False, shares: Mapping[str, float] | None = None
) -> Any:
    """An .npz file of arrays `x` and `y`, or of parts: train_images, train_labels, val_images, ... as in MedMNIST.

    Bytes are read as images in [0, 1], as [C, H, W] or flat. A missing val part is split from the training part. A
    folder of .npy files with these names works too; what is too large for memory is read from them batch by batch.
    """
    arrays = _arrays(Path(path))
    if inputs in arrays and targets in arrays:
        return _part(arrays[inputs], arrays[targets], flat)
    for x, y in LAYOUTS:
        parts = {part: (x.format(part), y.format(part)) for part in PARTS}
        there = {part: pair for part, pair in parts.items() if set(pair) <= set(arrays)}
        if "train" in there:
            found: dict[str, Any] = {part: _part(arrays[a], arrays[b], flat) for part, (a, b) in there.items()}
            return {"val": (shares or {}).get("val", 0.2) or None, **found}
    held = ", ".join(sorted(arrays)) or "no arrays"
    text = f"{path} has {held}, but neither {inputs} and {targets} nor train_images and train_labels."
    raise DataProblem(f"{text} Set the options inputs and targets.")


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file, or those of a folder, mapped to memory."""
    try:
        if path.is_dir():
            return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in sorted(path.glob("*.npy"))}
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, OSError, zipfile.BadZipFile, AttributeError) as error:
        raise DataProblem(f"{path} is not an .npz file of plain arrays: {error}") from None


def _part(x: np.ndarray, y: np.ndarray, flat: bool) -> Any:
    """Return inputs and targets; images in a mapped file are converted when they are read."""
    if isinstance(x, np.memmap) and x.dtype == np.uint8:
        return MappedImages(x, _labels(y), flat)
    return (x.reshape(len(x), -1) if flat else x) if isinstance(x, np.memmap) else _images(x, flat), _labels(y)


class MappedImages(Dataset[Any]):
    """Images of bytes in a file, each of which is read when it is asked for."""

    def __init__(self, images: np.ndarray, targets: np.ndarray, flat: bool) -> None:
        self._images, self.targets, self._flat = images, targets, flat

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.generic]:
        return _images(np.asarray(self._images[number : number + 1]), self._flat)[0], self.targets[number]


def _images(x: np.ndarray, flat: bool) -> np.ndarray:
    if x.dtype == np.uint8:
        x = x / np.float32(255)
        if x.ndim == 3:
            x = x[:, None]
        elif x.ndim == 4 and x.shape[3] in (1, 3, 4):
            x = x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x.reshape(len(x), -1) if flat else x)


def _labels(y: np.ndarray) -> np.ndarray:
    """Return the targets: a column of integers is a class, several columns of 0 and 1 are labels."""
    if y.dtype.kind in "iub" and y.ndim == 2:
        return y[:, 0] if y.shape[1] == 1 else y.astype(float) if np.isin(y, (0, 1)).all() else y
    if y.dtype.kind in "US":
        return np.asarray(np.unique(y, return_inverse=True)[1])
    return y
