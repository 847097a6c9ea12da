"""What tests of several folders share."""

import shutil

import pytest
import torch  # before plug-ins are looked up: tests call their functions and look at their sources

from clipbench.engine import lowering
from clipbench.tracking.uri import default_uri

lowering.FAULTS = ()  # a fault of ours is an error, not a slower path
torch.set_num_threads(1)  # as in a worker; on a busy machine, threads of one small model wait for one another


@pytest.fixture(scope="session")
def with_database(tmp_path_factory):
    """Put an empty MLflow database into a results folder: a copy, because making its tables takes seconds."""
    made = tmp_path_factory.mktemp("database")

    def put(results):
        from clipbench.tracking.mlflow_client import MlflowExperiment, connection

        if not (made / "mlflow.db").exists():
            with connection(default_uri(made), ""):
                MlflowExperiment.at(default_uri(made), "empty", made / "mlartifacts")
        results.mkdir(parents=True, exist_ok=True)
        shutil.copy(made / "mlflow.db", results)
        return results

    return put
