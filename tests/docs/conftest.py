"""The quickstart experiment, run once for the tests of the pages."""

from types import SimpleNamespace

import pytest

from tests import pages


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """The quickstart experiment, shortened, in a folder of its own."""
    folder = tmp_path_factory.mktemp("quick")
    return SimpleNamespace(folder=folder, said=pages.quickstart(folder, "--seeds", "2", "--set", "train.epochs=2"))
