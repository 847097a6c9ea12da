"""What tests of several folders share."""

import os
import shutil
from functools import cache

import pytest
import torch  # before plug-ins are looked up: tests call their functions and look at their sources
from hypothesis import settings

from clipbench.compiler.library import COMPILERS, NoLibrary, library
from clipbench.engine import lowering
from clipbench.execution.process_limits import cores
from clipbench.tracking.uri import default_uri

settings.register_profile("of any speed", deadline=None)  # a busy machine is no fault
settings.load_profile("of any speed")
lowering.FAULTS = ()  # a fault of ours is an error, not a slower path
torch.set_num_threads(1)  # as in a worker; on a busy machine, threads of one small model wait for one another


@pytest.hookimpl(optionalhook=True)  # also without xdist
def pytest_xdist_auto_num_workers(config):
    """Use one process more than there are cores: many tests wait for processes that they have started."""
    return cores() + 1


def pytest_runtest_setup(item):
    if item.get_closest_marker("native") and (reason := without_kernels()):
        pytest.skip(reason)
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("there is no GPU")


@cache
def without_kernels():
    """Return why there are no compiled kernels, or nothing; CI must have them where it has a compiler."""
    try:
        library(torch.float32)
    except NoLibrary as reason:
        compiler = os.environ.get("CC") or any(map(shutil.which, COMPILERS))
        return "" if compiler and os.environ.get("CI") == "true" else str(reason)
    return ""


@pytest.fixture
def assert_fastest():
    """Check that trials were trained by the fastest method of this machine, and that notes give no other reason."""
    reason = without_kernels()

    def check(engines, notes):
        if reason:
            assert all(note.startswith(f"native: {reason}") for note in notes), notes
        else:
            assert set(notes) == {None}
        assert set(engines) <= ({"replay"} if reason else {"native"})

    return check


@pytest.fixture(scope="session")
def with_database(tmp_path_factory):
    """Put an empty MLflow database into a results folder: a copy, because making its tables takes seconds."""
    made = tmp_path_factory.mktemp("database")

    def put(results):
        from clipbench.tracking.mlflow_client import MlflowExperiment
        from clipbench.tracking.mlflow_connection import connection

        if not (made / "mlflow.db").exists():
            with connection(default_uri(made), ""):
                MlflowExperiment.at(default_uri(made), "empty", made / "mlartifacts")
        results.mkdir(parents=True, exist_ok=True)
        shutil.copy(made / "mlflow.db", results)
        return results

    return put
