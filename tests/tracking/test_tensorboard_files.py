"""`--tensorboard`: TensorBoard's own reader finds every series and the options of every trial."""

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from clipbench.errors import ClipbenchError
from clipbench.tracking import tensorboard_files
from tests.cli_helpers import train, write
from tests.scripts.helpers import write_script


@pytest.fixture(scope="module", params=["engine", "script"])
def written(request, tmp_path_factory):
    """The results of an experiment with event files."""
    folder = tmp_path_factory.mktemp(request.param)
    arms = ["none", {"name": "norm", "threshold": 0.5}]
    path = write(folder, clip=arms, seeds=2) if request.param == "engine" else write_script(folder, clip=arms, seeds=2)
    train(path, folder / "results", "--tensorboard")
    return folder / "results" / path.stem


def readers(folder):
    found = {}
    for file in (folder / "tensorboard").rglob("events.out.tfevents.*"):
        reader = EventAccumulator(str(file.parent), size_guidance={"scalars": 0})
        reader.Reload()
        found[file.parent.relative_to(folder / "tensorboard").as_posix()] = reader
    return found


def test_series_are_those_of_the_parquet_files(written):
    steps, epochs = pd.read_parquet(written / "steps"), pd.read_parquet(written / "epochs")
    found = readers(written)
    assert {name.split("-")[0] for name in found} == {"none/seed", "norm@0.5/seed"}
    assert len(found) == 4
    for name, reader in found.items():
        trial = next(id_ for id_ in steps["id"].unique() if name.endswith(id_[:8]))
        for tag, table, key in (
            ("grad_norm/pre", steps, "step"),
            ("train/loss", steps, "step"),
            ("epoch/val/loss", epochs, "epoch"),
        ):
            expected = table[table["id"] == trial].sort_values(key)
            events = reader.Scalars(tag)
            assert [event.step for event in events] == list(expected[key])
            values = expected[tag.removeprefix("epoch/")]
            assert [event.value for event in events] == pytest.approx(list(values), rel=1e-6)


def test_options_and_final_measures_are_on_the_page_of_hyperparameters(written):
    records = pd.read_parquet(written / "records").set_index("id")
    for reader in readers(written).values():
        content = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
        row = records.loc[start.group_name]
        assert start.hparams["arm"].string_value == row["arm"]
        assert start.hparams["seed"].number_value == row["seed"]
        assert reader.Scalars("final/test/loss")[0].value == pytest.approx(row["test/loss"], rel=1e-6)


def test_without_tensorboard_nothing_is_started(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.summary", None)
    with pytest.raises(ClipbenchError, match=r"pip install 'clipbench\[tensorboard\]'"):
        tensorboard_files.check_installed()
