"""What a script saved, in a file that replaces the last one at once: its own state, its records, all generators."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipbench.core.generators import States
from clipbench.errors import first_sentence
from clipbench.scripts.attached_pair import ScriptError
from clipbench.store.atomic_files import write_atomically

PLAIN = (str, bytes, int, float, bool, complex, type(None), Tensor, torch.Size, torch.dtype, torch.device)


class SavedState:
    """The file of one trial. It is read without pickle, so that it can hold nothing but plain values and tensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._generators: dict[str, Any] = {}

    def read(self) -> dict[str, Any] | None:
        """Return what was written last; None if there is nothing, or if the file is damaged."""
        try:
            content: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
            unplain = isinstance(error, pickle.UnpicklingError)  # whose message says how to run what is in the file
            why = "it does not hold plain values" if unplain else first_sentence(error)
            print(f"clipbench: {self.path} is damaged ({why}); the trial starts anew.", file=sys.stderr)
            return None
        self._generators = content["generators"]
        return content

    def write(self, state: Any, clip: Mapping[str, Any]) -> None:
        _check_plain(state, "state")
        buffer = io.BytesIO()
        torch.save({"state": state, "clip": dict(clip), "generators": _generators()}, buffer)
        write_atomically(self.path, buffer.getvalue())

    def restore_generators(self) -> None:
        """Set the generators of torch, numpy and `random` as they were."""
        saved = self._generators
        name, keys, *rest = saved["numpy"]
        version, internal, gauss = saved["random"]
        numpy_state = (name, keys.numpy().astype(np.uint32), *rest)
        cuda = saved["cuda"][: torch.cuda.device_count()]
        States(saved["torch"], cuda, (version, tuple(internal), gauss), numpy_state).restore()


def _generators() -> dict[str, Any]:
    """Return the states of all generators as plain values and tensors."""
    now = States.now()
    name, keys, *rest = now.numpy
    version, internal, gauss = now.random
    return {
        "torch": now.torch,
        "cuda": now.cuda,
        "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), *rest],
        "random": [version, list(internal), gauss],
    }


def _check_plain(value: Any, where: str) -> None:
    """Refuse what could not be read back without running code."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple | set):
        for number, item in enumerate(value):
            _check_plain(item, f"{where}[{number}]")
    elif not isinstance(value, PLAIN):
        raise ScriptError(
            f"clip.save cannot keep {where}, a {type(value).__name__}. Save tensors, numbers, text, lists and mappings "
            "of them, such as model.state_dict() and optimizer.state_dict()."
        )
