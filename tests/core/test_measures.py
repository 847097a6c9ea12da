"""The table of measures: names, directions, and what may refer to them."""

import subprocess
import sys

import pytest

from clipbench.core import measures
from clipbench.plugins.registry import catalogue

METRICS = {name: plugin.higher_is_better for name, plugin in catalogue("metric").items()}


@pytest.mark.parametrize("table", measures.TABLES)
def test_every_name_is_there_once(table):
    names = [column.name for column in measures.TABLES[table]]
    assert len(names) == len(set(names))


def test_a_column_of_two_tables_has_one_type():
    columns = [column for table in measures.TABLES.values() for column in table]
    assert all(measures.TYPES[column.name] is column.type for column in columns)


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        ("test/accuracy", True),
        ("best_val/mse", False),
        ("train/loss", False),
        ("train/loss_tail_p99", False),
        ("weight_sparsity", True),
        ("step_us", False),
        ("parameters", None),
        ("test/own", None),
        ("nonsense/accuracy", None),
    ],
)
def test_a_measure_knows_its_direction(name, higher):
    assert measures.higher_is_better(name, METRICS) is higher


def test_the_direction_of_a_users_metric_is_the_one_it_declares():
    assert measures.higher_is_better("val/own", {"own": False}) is False


def test_everything_that_can_be_compared_has_a_direction_or_is_neutral():
    unknown = {name for name in measures.compared(METRICS) if measures.higher_is_better(name, METRICS) is None}
    assert unknown == set(measures.NEUTRAL)


def test_what_is_monitored_is_measured_after_every_epoch_and_uses_no_test_data():
    assert measures.monitored(["accuracy"]) == ("train/loss", "val/loss", "val/accuracy")


def test_measures_on_test_data_are_marked():
    marked = {name for name in measures.compared(["accuracy"]) if measures.final(name).uses_test_data}
    assert marked == {"test/loss", "test/accuracy", "generalization_gap", "membership_advantage"}


@pytest.mark.parametrize(
    ("name", "unit"), [("test/accuracy", "%"), ("val/top5_accuracy", "%"), ("step_us", "µs"), ("test/mse", "")]
)
def test_units(name, unit):
    assert measures.unit(name) == unit


def test_the_table_needs_no_library():
    code = "import sys; from clipbench.core import measures; assert not {'torch', 'pydantic', 'numpy'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
