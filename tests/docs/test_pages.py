"""The pages explain every word of the program, and name only commands, options and make targets that exist."""

import re

import pandas as pd
import pytest
import typer.main

from clipbench.analysis import verdicts
from clipbench.cli import app
from clipbench.commands.result import Result
from clipbench.config.load_experiment import KEYS
from clipbench.config.sections import ReportSection
from clipbench.config.sweep_section import Sweep
from clipbench.config.train_section import Train
from clipbench.core import measures
from clipbench.plugins.registry import catalogue
from clipbench.store.column_types import is_option
from tests import pages
from tests.pages import ROOT
from tests.test_architecture import LAYERS

TEXT = pages.everything()
OF_SCRIPTS = ("model_name", "initial_weights", "first_batches")  # columns
COMMANDS = typer.main.get_command(app).commands


def options_of(command):
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help",
        "-h",
    }


OPTIONS = {option for command in COMMANDS.values() for option in options_of(command)}
# Options that are not of a command: of the program itself, of scripts that run alone, and of pip and `mlflow ui`.
OTHERS = {
    "--clip",
    "--logdir",
    "--lr",
    "--seed",
    "--version",
    "--install-completion",
    "--show-completion",
    "--index-url",
    "--port",
    *("--head", "--address", "--num-cpus", "--block"),  # of `ray start`
    *("--nodes", "--ntasks", "--ntasks-per-node", "--cpus-per-task", "--exclude"),  # of Slurm
}


def typed():
    """Every clipbench command line in the pages: in a line of code, or in the text."""
    shell = "\n".join(block.text for block in pages.blocks("sh"))
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", TEXT, flags=re.DOTALL | re.MULTILINE))
    for line in [*shell.splitlines(), *spans]:
        if found := re.match(r"(?:\S*/)?clipbench (?!-)([^#]*)", line.strip()):
            yield found[1].split()


def test_every_command_line_in_the_pages_is_one():
    lines = list(typed())
    assert len(lines) > 20
    for command, *arguments in lines:
        assert command in COMMANDS, command
        used = {argument.partition("=")[0] for argument in arguments if re.match(r"--?[a-z]", argument)}
        assert used <= options_of(COMMANDS[command]), f"clipbench {command} {' '.join(arguments)}"


def test_every_option_in_the_pages_exists():
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT))
    assert used <= OPTIONS | OTHERS


def test_every_command_is_in_the_pages():
    assert set(COMMANDS) - {command for command, *_ in typed()} == set()


def test_every_column_is_in_the_table_of_measures(quick):
    folder = quick.folder / "results/quickstart"
    for table, columns in measures.TABLES.items():
        known = {name for column in columns for name in column.names(["accuracy"])}
        found = {column for column in pd.read_parquet(folder / table) if not is_option(column) or "." not in column}
        assert found <= known, table
        assert known - found <= {"epsilon", "error", *OF_SCRIPTS}, table


@pytest.mark.parametrize(
    "key", [*KEYS, *Train.model_fields, "loss", "metrics", *ReportSection.model_fields, *Sweep.model_fields]
)
def test_every_key_of_the_yaml_is_explained(key):
    text = pages.text("experiments/README.md")
    assert re.search(rf"^\| (`[\w.]+`, )*`{key}`", text, re.MULTILINE)


def test_every_verdict_and_flag_is_explained():
    words = [verdicts.BEST, verdicts.TIED, verdicts.BETTER, verdicts.WORSE, verdicts.NO_EFFECT]
    words += [verdicts.UNDERPOWERED, verdicts.NO_DIFFERENCE, verdicts.NO_BASELINE, verdicts.BASELINE]
    words += ["never clipped", "clips > 95 % of steps", "best at the edge of the range"]
    text = pages.text("results/README.md")
    assert [word for word in words if f"`{word}`" not in text] == []


def test_every_attribute_of_a_result_is_explained():
    table = pages.text("experiments/README.md").partition("| attribute of a result |")[2].partition("\n\n")[0]
    public = {name for name in dir(Result) if not name.startswith("_")} | {"figures"}
    assert set(re.findall(r"`(\w+)[`(]", table)) == public | {"save"}


def test_every_target_of_the_makefile_is_explained_and_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) - {"help"}
    assert set(re.findall(r"`(?:\w+=1 )?make ([a-z-]+)", TEXT)) == targets


def test_the_table_of_folders_has_each_once_and_in_the_order_of_imports():
    text = pages.text("clipbench/README.md")
    shown = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", text, re.MULTILINE)
    rooms = [name for names in LAYERS for name in names if not name.startswith("__")]
    inside = {path.parent.name for path in (ROOT / "clipbench/engine").glob("*/__init__.py")}
    assert sorted(shown) == sorted({*rooms, *inside})
    order = {name: number for number, names in enumerate(LAYERS) for name in names}
    levels = [order[name] for name in shown if name in order]
    assert levels == sorted(levels)


def test_readme_counts_the_strategies():
    (counted,) = re.findall(r"the (\d+) strategies", pages.text("README.md"))
    assert int(counted) == len(catalogue("strategy"))


def test_the_speeds_in_readme_are_those_that_the_page_on_the_engine_explains():
    def rows(page):
        return {
            name: re.findall(r"[\d.,]+", cells)
            for name, cells in re.findall(r"^\| ([^|`]+) \|((?: [\d.,]+ \|){4,5})", pages.text(page), re.MULTILINE)
        }

    measured = rows("clipbench/README.md")
    shown = rows("README.md")
    assert len(shown) == 5
    for name, (parameters, loop, cohort, times) in shown.items():
        size, threads, single, speed, gain = measured[name]
        assert (parameters, cohort, times) == (size, speed, gain)
        assert loop == max(threads, single, key=lambda text: float(text.replace(",", "")))
