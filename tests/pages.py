"""The documentation pages as tests see them: their code blocks, and the parts that are generated from the program."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from clipbench.analysis.report_model import SearchResult
from clipbench.cli.catalogue import COMMON, families, formula_of
from clipbench.config.component_options import signature
from clipbench.config.values import show
from clipbench.core import measures
from clipbench.plugins.registry import Plugin, catalogue
from clipbench.reporting import ReportOptions, compare, comparison_tables, search_tables
from clipbench.reporting.table import Table
from clipbench.store import sweep_file
from tests import fake_sweep
from tests.reporting.test_report import arm, reaching

ROOT = Path(__file__).parent.parent
QUICKSTART = "experiments/quickstart.yaml"
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """README.md and the pages in the folders, without what runs have left in results/."""
    folders = [page for folder in ("experiments", "clipbench") for page in (ROOT / folder).rglob("*.md")]
    return [ROOT / "README.md", ROOT / "results/README.md", *sorted(folders)]


PAGES = {page.relative_to(ROOT).as_posix(): page for page in pages()}


def text(page: str) -> str:
    return PAGES[page].read_text(encoding="utf-8")


def everything() -> str:
    """The text of all pages."""
    return "\n".join(text(page) for page in PAGES)


class Block(NamedTuple):
    language: str
    file: str  # the name of the file that it shows, if it gives one
    text: str


def blocks(language: str) -> list[Block]:
    """The code blocks of a language in all pages."""
    return [Block(*found) for found in FENCE.findall(everything()) if found[0] == language]


def clipbench(*arguments: str, folder: Path, columns: int = 80) -> str:
    """The standard output of a clipbench command."""
    command = [sys.executable, "-m", "clipbench", *arguments]
    environment = {**os.environ, "COLUMNS": str(columns)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def _page_of(name: str) -> str:
    """The page that has a part of this name."""
    (page,) = [page for page in PAGES if f"<!-- {name} -->\n" in text(page)]
    return page


def part(name: str) -> str:
    """The text between the marker of a part and its end."""
    found = re.search(_pattern(name), text(_page_of(name)), re.DOTALL)
    assert found, f"<!-- {name} --> has no <!-- end -->"
    return found[1].strip("\n")


def write_part(name: str, new: str) -> None:
    page = _page_of(name)
    replaced = re.sub(
        _pattern(name), lambda _: f"<!-- {name} -->\n\n{new}\n\n<!-- end -->", text(page), flags=re.DOTALL
    )
    PAGES[page].write_text(replaced, encoding="utf-8", newline="\n")


def _pattern(name: str) -> str:
    return rf"<!-- {name} -->\n(.*?)<!-- end -->"


def generated(name: str) -> str:
    """A part as it should be."""
    return "\n".join(TABLES[name]()).strip("\n")


def quickstart(folder: Path, *options: str) -> str:
    """The output of the quickstart experiment, without the paths of its files."""
    said = clipbench("run", str(ROOT / QUICKSTART), "--no-mlflow", *options, folder=folder)
    return "\n".join(line.rstrip() for line in said.partition("\nWritten: ")[0].strip().splitlines())


def pilot(folder: Path, *options: str) -> str:
    """The thresholds that a pilot of the quickstart experiment suggests."""
    rules = ("--strategy", "norm", "--strategy", "soft_norm")
    printed = clipbench("pilot", str(ROOT / QUICKSTART), *rules, "--no-mlflow", *options, folder=folder)
    return "\n".join(line.rstrip() for line in printed.strip().splitlines())


def strategies() -> Iterator[str]:
    for sentence, plugins in families("strategies"):
        yield f"\n**{sentence}**\n"
        yield "| strategy | formula | does | options | off at | from; remarks |"
        yield "|---|---|---|---|---|---|"
        for plugin in plugins:
            formula, source = formula_of(plugin)
            loose = plugin.facts["loose"]
            off = "" if loose is None else f"{loose:g}"
            yield _row(f"`{plugin.name}`", _code(formula), plugin.summary, _options(plugin), off, source)


def described(kind: str, heading: str) -> Iterator[str]:
    yield f"| {heading} | is | options |"
    yield "|---|---|---|"
    for plugin in catalogue(kind).values():
        yield _row(f"`{plugin.name}`", plugin.summary, _options(plugin))


def formulas(kind: str, heading: str) -> Iterator[str]:
    yield f"| {heading} | is | formula | options |"
    yield "|---|---|---|---|"
    for plugin in catalogue(kind).values():
        yield _row(f"`{plugin.name}`", plugin.summary, _code(formula_of(plugin)[0]), _options(plugin))


def optimizers() -> Iterator[str]:
    """Without their options, which change from one version of torch to the next."""
    yield "| optimizer | is | torch.optim | lr, if not said |"
    yield "|---|---|---|---|"
    for plugin in catalogue("optimizer").values():
        rate = show(signature(plugin)["lr"].default)
        yield _row(f"`{plugin.name}`", plugin.summary, _code(plugin.function.__name__), _code(rate))


def metrics() -> Iterator[str]:
    yield "| metric | is | formula | better |"
    yield "|---|---|---|---|"
    for plugin in catalogue("metric").values():
        better = "higher" if plugin.higher_is_better else "lower"
        yield _row(f"`{plugin.name}`", plugin.summary, _code(formula_of(plugin)[0]), better)


def measured(table: str) -> Iterator[str]:
    yield "| column | is | unit | better | may be named by |"
    yield "|---|---|---|---|---|"
    for column in measures.TABLES[table]:
        better = {True: "higher", False: "lower", None: ""}[column.higher_is_better]
        named_by = ", ".join(map(_code, column.named_by))
        yield _row(_code(column.name), column.meaning, column.unit, better, named_by)


def columns(tables: Iterable[Table]) -> Iterator[str]:
    """The meaning of each column of the tables, once, and of the words that stand in it."""
    seen: set[tuple[str, str]] = set()
    for table in tables:
        yield f"\n**{table.title.partition(':')[0]}**\n"
        yield "| column | is |"
        yield "|---|---|"
        headers: dict[str, list[str]] = {}
        for column in table.columns:
            if (column.header, column.meaning) not in seen:
                headers.setdefault(column.meaning, []).append(f"`{column.header}`")
                seen.add((column.header, column.meaning))
        yield from (_row(", ".join(names), meaning) for meaning, names in headers.items())
        for column in table.columns:
            if column.words:
                yield f"\n| {column.title} | means |"
                yield "|---|---|"
                yield from (_row(f"`{word}`", meaning) for word, meaning in column.words.items())


def comparison_columns() -> Iterator[str]:
    """The tables of a comparison that has a baseline, several thresholds and a target."""
    rows = reaching()
    more = [row | {"epochs_to_target": 5.0, "train.target": rows[0]["train.target"]} for row in arm("norm", 2.0)]
    (setting,) = compare(pd.DataFrame(rows + more)).settings
    return columns(comparison_tables.tables(setting))


def search_columns() -> Iterator[str]:
    """The tables of a search with several objectives and options."""
    objectives, jointly = _searched(fake_sweep.objectives), _searched(fake_sweep.jointly)
    confirmations, effort, pareto = (search_tables.tables(objectives)[number] for number in (0, 2, 3))
    return columns((confirmations, effort, search_tables.importances(jointly), pareto))


def _searched(scene: Callable[[], tuple[dict[str, Any], pd.DataFrame]]) -> SearchResult:
    written, frame = scene()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / sweep_file.FILE
        path.write_text(json.dumps(written), encoding="utf-8")
        return compare(frame, ReportOptions(swept=sweep_file.read(path))).search


TABLES = {
    "strategies": strategies,
    "models": lambda: formulas("model", "model"),
    "data": lambda: described("data", "data set"),
    "optimizers": optimizers,
    "losses": lambda: formulas("loss", "loss"),
    "metrics": metrics,
    "schedules": lambda: formulas("schedule", "schedule"),
    "noise": lambda: formulas("noise", "distribution"),
    "augmentations": lambda: formulas("augmentation", "augmentation"),
    "steps": lambda: measured("steps"),
    "epochs": lambda: measured("epochs"),
    "records": lambda: measured("records"),
    "comparison-columns": comparison_columns,
    "search-columns": search_columns,
}


def _options(plugin: Plugin) -> str:
    slots = signature(plugin).values()
    own = [slot for slot in slots if slot.name in plugin.options or slot.name.partition(".")[0] not in COMMON]
    shown = [
        slot
        for slot in own
        if (slot.name in plugin.options or not slot.quiet) and not (slot.required and slot.name == "threshold")
    ]
    texts = [slot.name if slot.required else f"{slot.name}={show(slot.default)}" for slot in shown]
    return ", ".join(_code(text.replace("'", "")) for text in texts)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.strip().replace("|", r"\|") for cell in cells) + " |"
