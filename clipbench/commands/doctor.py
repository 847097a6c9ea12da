"""The command doctor: device, versions of libraries, MLflow store."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform

from clipbench import __version__
from clipbench.execution.process_limits import cores
from clipbench.execution.worker_pool import WorkerPool
from clipbench.tracking.uri import redact

LIBRARIES = ("torch", "mlflow", "optuna", "numpy", "scipy", "pandas", "pyarrow", "scikit-learn")
OPTIONAL = {
    "ray": "training on a cluster",
    "datasets": "data from Hugging Face",
    "opacus": "epsilon of arms with noise",
    "tensorboard": "event files, read and written",
}


def examine(uri: str) -> dict[str, str]:
    """Return findings by name, in the order in which they are printed."""
    with WorkerPool(1) as pool:
        device = str(pool.call("clipbench.commands.devices:describe"))
        kernels = str(pool.call("clipbench.compiler.library:describe"))
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    missing = {
        name: f"not installed ({use})" for name, use in OPTIONAL.items() if importlib.util.find_spec(name) is None
    }
    return {
        "clipbench": __version__,
        "python": platform.python_version(),
        "cores": str(cores()),
        "device": device,
        "compiled kernels": kernels,
        **versions,
        "mlflow store": redact(uri),
        **missing,
    }
