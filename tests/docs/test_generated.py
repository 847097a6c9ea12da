"""Parts of the pages that are generated from the program, and the pasted output of the quickstart, are up to date."""

import os
import re

import pytest

from clipbench import config
from tests import pages
from tests.golden_files import RENEW
from tests.pages import ROOT

HOW = f"{RENEW}=1 pytest tests/docs writes it anew."


@pytest.mark.parametrize("name", pages.TABLES)
def test_generated_parts_are_up_to_date(name):
    text = pages.generated(name)
    if os.environ.get(RENEW):
        pages.write_part(name, text)
    assert pages.part(name) == text, f"<!-- {name} --> says something else. {HOW}"


def test_the_pasted_quickstart_has_the_arms_and_columns_that_it_prints(quick, tmp_path):
    if os.environ.get(RENEW):
        said = pages.quickstart(tmp_path)
        pages.write_part("quickstart", f"```text\n{_first_table(said)}\n```")
        pages.write_part("quickstart in full", f"```text\n{said}\n```")
    pasted = pages.part("quickstart in full")
    assert _headers(pasted) == _headers(quick.said), HOW
    assert _arms(pasted) == _arms(quick.said), HOW
    assert pages.part("quickstart") == f"{_first_table(pasted)}\n```", HOW


def test_the_pasted_pilot_says_what_it_prints(tmp_path):
    if os.environ.get(RENEW):
        pages.write_part("pilot", f"```text\n{pages.pilot(tmp_path, '--seeds', '4')}\n```")
    printed = pages.pilot(tmp_path, "--seeds", "2", "--set", "train.epochs=2")
    assert _words(pages.part("pilot")) == _words(printed) | {"```text", "```"}, HOW


def _words(text):
    """All words but the numbers."""
    return {word for word in text.split() if not re.match(r"[\[-]?\d", word)}


def _first_table(text):
    """The output until the end of its first table: the sentence above it included."""
    shown, found, rest = text.partition("───\n")
    return shown + found + rest.partition("\n\n")[0]


def _headers(text):
    """The words above the rule of each table."""
    lines = text.splitlines()
    return [" ".join(lines[at - 2 : at]).split()[-6:] for at, line in enumerate(lines) if line.startswith("───")]


def _arms(text):
    """The first words of the rows of the last table."""
    rows = text.split("───\n")[-1].partition("\n\n")[0]
    return {row.split()[0] for row in rows.splitlines()}


def test_the_quickstart_experiment_is_what_readme_says():
    experiment = config.load(ROOT / pages.QUICKSTART)
    counted = f"{len(experiment.arms)} arms in all, {len(experiment.seeds)} seeds each: {experiment.size} trials"
    assert counted in " ".join(pages.text("README.md").split())
    assert pages.QUICKSTART in pages.text("README.md")
