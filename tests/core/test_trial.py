"""A trial is named by its content: the same content has the same id everywhere, other content another one."""

from dataclasses import replace

import pytest

from clipbench.core.trial import Component, Training
from tests.fake_records import trial

OTHER = {
    "data": Component.of("wine"),
    "model": Component.of("mlp", hidden=(64,)),
    "optimizer": Component.of("sgd", lr=0.2),
    "train": Training(epochs=3),
    "clip": Component.of("norm", threshold=2.0),
    "seed": 1,
    "fingerprint": "other data of that name",
}


def test_an_id_is_the_same_on_every_machine_and_in_every_release():
    assert trial().id == "77431a6a14218205"


@pytest.mark.parametrize("name", OTHER)
def test_every_part_of_a_trial_changes_its_id(name):
    assert replace(trial(), **{name: OTHER[name]}).id != trial().id


def test_an_id_depends_neither_on_the_label_nor_on_the_folder_nor_on_the_order_of_options():
    same = replace(trial(), optimizer=Component.of("sgd", folder="/elsewhere", label="mine", momentum=0.9, lr=0.1))
    assert same.id == trial(momentum=0.9).id


def test_an_edited_file_of_the_user_changes_the_id():
    edited = replace(trial(), model=Component.of("./net.py:net", source="after"))
    assert edited.id != replace(trial(), model=Component.of("./net.py:net", source="before")).id
