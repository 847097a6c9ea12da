"""What tests of MLflow share."""

import pytest

from tests.mlflow_server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory, with_database):
    server = Server(with_database(tmp_path_factory.mktemp("server")))
    server.start()
    yield server
    server.kill()
