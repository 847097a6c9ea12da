"""sweep.json is read as it was written, and a damaged or foreign one is refused with what to do."""

import copy
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipbench.errors import ClipbenchError
from clipbench.reporting import search_sentences as words
from clipbench.store import sweep_file
from clipbench.store.atomic_files import DamagedFileError
from tests import fake_sweep


def written(folder, document):
    path = folder / "study" / "sweep.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def read(folder, document):
    return sweep_file.read(written(folder, document))


@pytest.mark.parametrize("scene", ["thresholds", "jointly", "objectives"])
def test_what_is_read_is_written_again_word_by_word(scene, tmp_path):
    document, _ = fake_sweep.SCENES[scene]()
    assert json.loads(sweep_file.text(read(tmp_path, document))) == document


def test_an_infinite_option_is_spelt_as_in_yaml_and_an_infinite_score_is_none(tmp_path):
    document, _ = fake_sweep.jointly()
    norm = document["contenders"][1]
    norm["hyperparameters"][0] |= {"choices": [1.0, math.inf, -math.inf]}
    norm["points"][0] |= {"values": {"threshold": math.inf}, "scores": [math.inf]}
    (param, _), point = (norm := read(tmp_path, document).contenders[1]).hyperparameters, norm.points[0]
    assert [words.value(value) for value in param.choices] == ["1", ".inf", "-.inf"]
    again = read(tmp_path, sweep_file.text(read(tmp_path, document))).contenders[1]
    assert again.hyperparameters[0].choices == (1.0, ".inf", "-.inf")
    assert again.points[0].values == {"threshold": ".inf"} and math.isnan(again.points[0].scores[0])
    assert not point.is_steady


def test_files_of_earlier_versions_are_read(tmp_path):
    document, _ = fake_sweep.jointly()
    for contender in document["contenders"]:
        contender["points"] = [point | {"round": 0} for point in contender["points"]]
    expected = read(tmp_path, document)
    for contender in document["contenders"]:
        contender["knobs"] = contender.pop("hyperparameters")
        for point in contender["points"]:
            del point["round"]
    assert read(tmp_path, document) == expected


def test_no_file_is_no_search(tmp_path):
    assert sweep_file.read(tmp_path / "sweep.json") is None


def test_points_come_in_the_order_of_their_numbers_with_the_winner_and_the_front(tmp_path):
    document, _ = fake_sweep.objectives()
    document["contenders"][1]["points"].reverse()
    norm = read(tmp_path, document).contenders[1]
    assert [point.number for point in norm.points] == list(range(40))
    assert norm.winning.number == norm.winner
    assert {point.number for point in norm.front} == set(norm.pareto)


def test_a_point_without_scores_has_one_that_is_not_known_for_each_objective(tmp_path):
    document, _ = fake_sweep.objectives()
    document["contenders"][1]["points"][3] |= {"scores": [], "deviations": [None, None]}
    point = read(tmp_path, document).contenders[1].points[3]
    assert all(math.isnan(each) for n in (0, 1) for each in (point.score(n), point.deviation(n)))
    assert not point.is_steady


def test_a_space_of_choices_has_a_size_and_a_range_has_none(tmp_path):
    document, _ = fake_sweep.jointly()
    document["contenders"][2]["hyperparameters"] = [fake_sweep.BATCHES, fake_sweep.BATCHES | {"path": "clip.other"}]
    none, _, zclip = read(tmp_path, document).contenders
    assert (none.size, zclip.size) == (float("inf"), 9)


def test_the_password_of_a_storage_is_not_kept(tmp_path):
    document, _ = fake_sweep.thresholds()
    document["storage"] = "postgresql+psycopg://me:secret@host:5432/studies"
    assert read(tmp_path, document).storage == "postgresql+psycopg://host:5432/studies"


def broken(*path, value=None, missing=False):
    document = copy.deepcopy(fake_sweep.objectives()[0])
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    if missing:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "the document: expected an object, got []"),
        ("{}", "format: missing"),
        ({"format": 2}, "was written by a newer clipbench; this one reads formats up to 1. Update clipbench."),
        (broken("trials", value="many"), "trials: expected a valid integer, got 'many'"),
        (broken("trials", value=True), "trials: expected a valid integer, got True"),
        (broken("objectives", value=[]), "objectives: expected one or more, got []"),
        (broken("objectives", 0, "higher", value=1), "objectives[0].higher: expected a valid boolean, got 1"),
        (broken("contenders", 1, "label", missing=True), "contenders[1].label: missing"),
        (broken("contenders", 1, "winner", value=99), "contenders[1].winner: expected the number of a point, got 99"),
        (broken("contenders", 1, "pareto", value=[99]), "contenders[1].pareto: expected numbers of points, got [99]"),
        (broken("contenders", 1, "points", 3, "state", value="lost"), "points[3].state: expected 'complete', 'pru"),
        (broken("contenders", 1, "points", 3, "scores", value=[1.0]), "points[3].scores: expected 2 numbers"),
        (broken("contenders", 1, "points", 3, "scores", value=["a"]), "scores[0]: expected a valid number, got 'a'"),
        (broken("contenders", 1, "points", 3, "values", value={"a": []}), "values.a: expected a single value, got []"),
        (broken("contenders", 1, "points", value={}), "contenders[1].points: expected a valid array, got {}"),
    ],
)
def test_damaged_and_foreign_files_are_refused_with_the_place(document, words, tmp_path):
    with pytest.raises(ClipbenchError) as caught:
        read(tmp_path, document)
    assert words in str(caught.value)
    damaged = str(caught.value).startswith(f"{tmp_path / 'study' / 'sweep.json'} is damaged (")
    assert damaged == isinstance(caught.value, DamagedFileError) == ("pdate clipbench" not in str(caught.value))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = written(tmp_path, "")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ClipbenchError, match=r"is damaged \(not UTF-8\)"):
        sweep_file.read(path)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_whatever_stands_in_the_file_it_is_read_or_refused(tmp_path_factory, data):
    """No other error ever reaches the user."""
    document = copy.deepcopy(fake_sweep.unfinished()[0])
    inner, step = document, None
    while isinstance(inner, dict | list) and inner:
        outer, step = inner, data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        inner = outer[step]
        if data.draw(st.booleans()):
            break
    outer[step] = data.draw(ANYTHING)
    try:
        assert sweep_file.text(read(tmp_path_factory.mktemp("any"), document))
    except ClipbenchError as error:
        assert "sweep.json" in str(error)
