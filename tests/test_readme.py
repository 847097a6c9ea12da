"""README is under test: what it shows is what the program does, and its examples run."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import typer.main
import yaml

from clipbench import config
from clipbench.analysis import verdicts
from clipbench.cli import app
from clipbench.config.experiment_file import KEYS
from clipbench.config.sections import ReportOptions
from clipbench.config.sweep_section import Sweep
from clipbench.config.train_section import Train
from tests import readme
from tests.golden_files import RENEW
from tests.readme import ROOT, blocks

TEXT = readme.PATH.read_text(encoding="utf-8")
BASE = {"data": "digits", "model": "mlp", "optimizer": "sgd", "clip": ["none"], "seeds": 2}
HOW = f"{RENEW}=1 pytest tests/test_readme.py writes it anew."


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The quickstart experiment, shortened, in a folder of its own."""
    folder = tmp_path_factory.mktemp("quick")
    return SimpleNamespace(folder=folder, said=readme.quickstart(folder, "--seeds", "2", "--set", "train.epochs=2"))


@pytest.fixture
def examples(tmp_path):
    """A folder with every file that README shows."""
    for block in blocks("yaml") + blocks("python"):
        if block.file:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
    for name in re.findall(r"\bpath: ([\w.]+)", TEXT):
        (tmp_path / name).touch()  # files of the reader's
    return tmp_path


@pytest.mark.parametrize("name", readme.PARTS)
def test_generated_parts_are_up_to_date(name):
    text = readme.generated(name)
    if os.environ.get(RENEW):
        readme.write_part(name, text)
    # Versions of Typer break lines in other places.
    assert readme.part(name).split() == text.split(), f"<!-- {name} --> says something else. {HOW}"


def test_the_pasted_quickstart_has_the_arms_and_columns_that_it_prints(quick, tmp_path):
    if os.environ.get(RENEW):
        said = readme.quickstart(tmp_path)
        readme.write_part("quickstart", f"```text\n{said}\n```")
    pasted = readme.part("quickstart")
    assert _headers(pasted) == _headers(quick.said), HOW
    assert _arms(pasted) == _arms(quick.said), HOW


def _headers(text):
    """The words over each rule of a table."""
    lines = text.splitlines()
    return [" ".join(lines[at - 2 : at]).split()[-6:] for at, line in enumerate(lines) if line.startswith("───")]


def _arms(text):
    """The first words of the rows of the last table."""
    rows = text.partition("Every strategy and threshold")[2].split("───\n")[-1].partition("\n\n")[0]
    return {row.split()[0] for row in rows.splitlines()}


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.file or block.text.split("\n")[0][:30])
def test_every_yaml_block_is_valid(block, examples):
    written = yaml.safe_load(block.text)
    path = examples / (block.file or "block.yaml")
    path.write_text(yaml.safe_dump(written if "model" in written else BASE | written), encoding="utf-8")
    assert config.load(path).size > 0


@pytest.mark.parametrize("name", [block.file for block in blocks("yaml") if block.file])
def test_every_example_trains(name, examples):
    readme.clipbench("run", name, "--no-mlflow", "--workers", "1", folder=examples)
    experiment = yaml.safe_load((examples / name).read_text(encoding="utf-8"))
    records = pd.read_parquet(examples / "results" / experiment["name"] / "records")
    assert set(records["status"]) <= {"finished", "diverged"}
    assert len(records) == config.load(examples / name).size


def test_the_plain_loop_reproduces_a_trial(tmp_path):
    code = next(block.text for block in blocks("python") if "clip_grad_norm_(" in block.text)
    loop = {}
    exec(compile(code, "README.md", "exec"), loop)
    (tmp_path / "loop.yaml").write_text(
        "data: digits\nmodel: mlp\noptimizer: {name: sgd, lr: 0.1, momentum: 0.9}\n"
        "train: {epochs: 2}\nclip: {name: norm, threshold: 0.5}\nseeds: [3]\n"
    )
    readme.clipbench("run", "loop.yaml", "--no-mlflow", "--workers", "1", folder=tmp_path)
    steps = pd.read_parquet(tmp_path / "results/loop/steps").sort_values("step")
    np.testing.assert_allclose(steps["train/loss"], loop["losses"], rtol=1e-4)


def test_the_files_are_read_with_pandas_as_shown(quick, monkeypatch):
    code = next(block.text for block in blocks("python") if "read_parquet" in block.text)
    monkeypatch.chdir(quick.folder)
    found = {}
    exec(compile(code, "README.md", "exec"), found)
    assert len(found["curve"]) == 2 * 17  # epochs of 1079 examples in batches of 64


def test_the_rule_that_shows_how_to_add_one_is_a_rule():
    code = next(block.text for block in blocks("python") if "clipbench.plugins.registry import strategy" in block.text)
    found = {}
    exec(compile(code, "README.md", "exec"), found)
    assert found["norm"].__clipbench__.facts["per"] == "model"


def test_every_column_is_explained(quick):
    folder = quick.folder / "results/quickstart"
    for table in ("records", "epochs", "steps"):
        for column in pd.read_parquet(folder / table):
            if "." not in column:
                part = column.partition("/")[0]
                assert f"`{column}`" in TEXT or f"`{part}/*`" in TEXT, f"{column} of {table}"


def test_every_command_and_option_is_in_the_reference():
    reference = readme.part("commands")
    for name, command in typer.main.get_command(app).commands.items():
        section = reference.partition(f"### {name}\n")[2].partition("\n### ")[0]
        assert section, name
        missing = [option for param in command.params for option in param.opts if option.startswith("--")]
        assert [option for option in missing if option not in section] == []


@pytest.mark.parametrize(
    "key", [*KEYS, *Train.model_fields, "loss", "metrics", *ReportOptions.model_fields, *Sweep.model_fields]
)
def test_every_key_of_the_yaml_is_explained(key):
    assert re.search(rf"^\| (`[\w.]+`, )*`{key}`", TEXT, re.MULTILINE)


def test_every_verdict_and_flag_is_explained():
    words = [verdicts.BEST, verdicts.TIED, verdicts.BETTER, verdicts.WORSE, verdicts.NO_EFFECT]
    words += [verdicts.UNDERPOWERED, verdicts.OPEN, verdicts.NO_BASELINE, verdicts.BASELINE]
    words += ["never fired", "fires on > 95 % of steps", "best at the edge of the range"]
    assert [word for word in words if f"`{word}`" not in TEXT] == []


def test_every_verb_of_the_makefile_is_explained_and_there():
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) - {"help"}
    assert set(re.findall(r"`(?:\w+=1 )?make ([a-z-]+)", TEXT)) == verbs


def test_the_tree_shows_every_module():
    tree = TEXT.partition("\nclipbench/\n")[2].partition("```")[0]
    shown = set(re.findall(r"(?:^|\s)(\w+(?:\.py|/))", tree))
    there = {path.name for path in (ROOT / "clipbench").glob("[a-z]*.py")}
    there |= {f"{path.parent.name}/" for path in (ROOT / "clipbench").glob("*/__init__.py")}
    assert there <= shown
    assert {name for name in shown if name.endswith(".py")} <= there


def test_no_link_is_dead():
    anchors = {_anchor(heading) for heading in re.findall(r"^#+ (.+)$", FENCELESS, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", FENCELESS):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("http"):
            assert (ROOT / target).exists(), target


FENCELESS = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)


def _anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_quickstart_experiment_is_what_readme_says():
    experiment = config.load(ROOT / readme.QUICKSTART)
    counted = f"{len(experiment.arms)} arms in all, {len(experiment.seeds)} seeds each: {experiment.size} trials"
    assert counted in " ".join(TEXT.split())
    assert Path(readme.QUICKSTART).as_posix() in TEXT
