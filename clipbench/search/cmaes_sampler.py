"""Optuna's CMA-ES sampler, which reads its state from the study, where a stranger may have put a program."""

from __future__ import annotations

import io
import pickle
from typing import Any

from optuna.samplers import CmaEsSampler
from optuna.trial import FrozenTrial

from clipbench.errors import ClipbenchError

# Everything that the pickle of a state names: the object, its arrays and its numbers. None of it can run a program.
NAMES = {
    ("cmaes._cma", "CMA"),
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
}
DAMAGE = (pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError)


class PlainCmaEsSampler(CmaEsSampler):
    """Optuna's sampler, which reads no other pickle than that of its own state."""

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        for trial in reversed(completed_trials):
            parts = {key: text for key, text in trial.system_attrs.items() if key.startswith(self._attr_key_optimizer)}
            if parts:
                return plain_state("".join(parts.get(f"{self._attr_key_optimizer}:{n}", "") for n in range(len(parts))))
        return None


def plain_state(text: str) -> Any:
    """Return the state in the hexadecimal text of a pickle; raise ClipbenchError if it is anything else."""
    from cmaes import CMA

    try:
        found = _StateUnpickler(io.BytesIO(bytes.fromhex(text))).load()
    except DAMAGE as error:
        raise _refused("something else") from error
    if not isinstance(found, CMA):
        raise _refused(type(found).__name__)
    return found


class _StateUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module.replace("numpy._core", "numpy.core"), name) not in NAMES:  # as NumPy 2 calls it
            raise _refused(f"{module}.{name}")
        return super().find_class(module, name)


def _refused(what: str) -> ClipbenchError:
    remedy = "Delete sweep.journal and sweep.json from the results folder, or name another --storage, and search anew."
    return ClipbenchError(f"the search holds {what} in the place of the state of cmaes. {remedy}")
