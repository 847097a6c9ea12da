"""`run --frozen`: the same trials with the same bits, or a word about what differs and nothing trained."""

import json

import pytest
import yaml

from clipbench.planning.build import prepare
from clipbench.store import path_choices
from clipbench.store.folder import Store
from clipbench.store.path_choices import PathChoice
from tests.cli_helpers import assert_same, invoke, records, write

CSV = "a,b,y\n" + "\n".join(f"{n % 7},{n % 5},{n % 2}" for n in range(120))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a model and data of the user's own, whose trials a choice of time has trained one after another."""
    folder = tmp_path_factory.mktemp("frozen")
    (folder / "table.csv").write_text(CSV)
    data = {"name": "csv", "path": str(folder / "table.csv"), "target": "y"}
    path = write(folder, data=data, model="./mine.py:net", seeds=2)
    store = Store(folder / "results" / "small")
    slow = PathChoice("replay", together=2.0, looped=1.0)
    path_choices.add(store, {cohort.id: slow for cohort in prepare(str(path)).cohorts})
    said = invoke("run", path, "--results", folder / "results", "--no-mlflow")
    assert said.exit_code == 0, said.stderr
    return folder


def again(trained, tmp_path, *options, **changes):
    """Run the experiment of the results folder again, elsewhere, after changes of its file."""
    file = trained / "results" / "small" / "experiment.yaml"
    if changes:
        document = yaml.safe_load(file.read_text())
        for path, value in changes.items():
            *sections, last = path.split("__")
            part = document
            for section in sections:
                part = part[section]
            part[last] = value
        file = tmp_path / "small.yaml"
        file.write_text(yaml.safe_dump(document, sort_keys=False))
    return invoke("run", "--frozen", file, "--results", tmp_path / "results", "--no-mlflow", *options)


def test_it_gives_the_same_bits_and_the_same_file(trained, tmp_path):
    said = again(trained, tmp_path, "--json")
    assert said.exit_code == 0 and json.loads(said.stdout)["trained"] == 8 and "may differ" not in said.stderr
    folders = [folder / "results" / "small" for folder in (trained, tmp_path)]
    assert_same(*folders)
    assert folders[0].joinpath("experiment.yaml").read_text() == folders[1].joinpath("experiment.yaml").read_text()
    assert set(records(folders[1])["engine"]) == {"looped"}, "the choice went along"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer__lr": 0.2}, "small.yaml:{line}: frozen.trials: these are other trials than those that were "),
        ({"optimizer__lr": 0.2}, "trained: options differ. Leave out --frozen to train the experiment as it is now."),
        ({"frozen__paths": {"x": 1}}, "frozen.paths: expected an engine and two times for each entry."),
        ({"frozen__trials": 3}, "frozen: is not what `clipbench run` writes. Remove the section."),
    ],
)
def test_another_file_trains_nothing(trained, tmp_path, changes, words):
    said = again(trained, tmp_path, **changes)
    assert said.exit_code == 2 and "Traceback" not in said.stderr
    line = said.stderr.split(":")[1] + ":" + said.stderr.split(":")[2]
    assert words.format(line=line) in said.stderr
    assert not (tmp_path / "results" / "small" / "records").exists()


@pytest.mark.parametrize(
    ("file", "words"),
    [("table.csv", "target=y) differ."), ("mine.py", "the file of ./mine.py:net differs.")],
)
def test_other_data_and_functions_are_named(trained, tmp_path, file, words):
    before = (trained / file).read_text()
    (trained / file).write_text(before.replace("6,1,0", "6,2,0") if file == "table.csv" else f"{before}\n# changed\n")
    try:
        said = again(trained, tmp_path)
    finally:
        (trained / file).write_text(before)
    assert said.exit_code == 2 and words in said.stderr, said.stderr
    assert not (tmp_path / "results").exists()


def test_other_versions_are_a_note(trained, tmp_path):
    said = again(trained, tmp_path, "--dry-run", frozen__environment={"torch": "1.0"})
    assert said.exit_code == 0 and "numbers may differ in their last digits: torch was 1.0 and is " in said.stdout


def test_without_the_section_or_with_other_options_it_is_an_error(trained, tmp_path):
    said = invoke("run", "--frozen", trained / "small.yaml", "--results", tmp_path)
    assert said.exit_code == 2 and "there is no section `frozen`" in said.stderr
    said = again(trained, tmp_path, "--seeds", "3")
    assert said.exit_code == 2 and "takes the file as it is, without --set and --seeds" in said.stderr
