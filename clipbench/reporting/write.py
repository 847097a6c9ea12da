"""Write the files of a report beside the records that it compares."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from clipbench.analysis import curves
from clipbench.analysis.compare import compare
from clipbench.analysis.report_model import Report
from clipbench.analysis.strategy_ranks import Combined
from clipbench.analysis.subject import Subject
from clipbench.core.experiment_name import COMBINED
from clipbench.reporting import figures, provenance
from clipbench.reporting.figures import Figure
from clipbench.reporting.formats import csv_table, html, json_report, latex, markdown
from clipbench.store import run_history
from clipbench.store.atomic_files import remove, write_atomically
from clipbench.store.folder import Store
from clipbench.store.sweep_file import SweepDocument

Drawn = list[list[Figure]]
POINTS = "search.csv"


def import_libraries() -> None:
    """Import what a report needs, while other processes still import torch or train."""
    for name in ("jinja2", "pyarrow.parquet", "scipy.stats"):
        importlib.import_module(name)


def publish(subject: Subject, store: Store, swept: SweepDocument | None = None) -> Report:
    """Compare the trials of a subject, and write the report in every format beside their records.

    With `swept`, the trials are what that search found, trained on fresh seeds, and the report includes the search. A
    note lists trials that the store lacks. Trials that the subject does not name are not compared.
    """
    records = store.records()
    report = build(subject, records, swept)
    drawn, across = figures.draw(report, curves.read(store, report), subject.options.norm_rules), figures.across(report)
    searched = figures.of_search(report)
    page = html.render(report, drawn, provenance.of(subject, records, run_history.read(store)), across, searched)
    for name, text in (
        ("report.md", markdown.render(report)),
        ("table.csv", csv_table.render(report)),
        ("table.tex", latex.render(report)),
        ("report.json", json_report.render(report)),
        ("report.html", page),
    ):
        store.write_text(name, text)
    _write_points(store, swept)
    _write_figures(store, _by_file(drawn, across, searched))
    return report


def write_combined(combined: Combined, folder: Path) -> Path:
    """Write the page of several experiments beside their folders, as HTML and Markdown; return its path."""
    text, page = COMBINED
    write_atomically(folder / text, markdown.render_combined(combined).encode(errors="replace"))
    write_atomically(folder / page, html.render_combined(combined).encode(errors="replace"))
    return folder / page


def write_pictures(subject: Subject, store: Store, swept: SweepDocument | None = None) -> list[str]:
    """Write the figures as PNG too; return the names of the files."""
    report = build(subject, store.records(), swept)
    drawn = figures.draw(report, curves.read(store, report), subject.options.norm_rules)
    named = _by_file(drawn, figures.across(report), figures.of_search(report))
    for name, figure in named.items():
        write_atomically(store.folder / "figures" / f"{name}.png", figure.png)
    return [f"figures/{name}.png" for name in named]


def build(subject: Subject, records: pd.DataFrame, swept: SweepDocument | None = None) -> Report:
    """Compare the trials of a subject, and write nothing."""
    return compare(records, replace(subject.options, swept=swept), name=subject.name)


def _by_file(drawn: Drawn, across: list[Figure], searched: list[Figure]) -> dict[str, Figure]:
    """Each figure by the name of its file, which begins with the number of its setting if there are several."""
    found = {figure.name: figure for figure in across}
    found |= {f"search-{figure.name}": figure for figure in searched}
    return found | {
        f"{f'{number + 1:02}-' if len(drawn) > 1 else ''}{figure.name}": figure
        for number, setting in enumerate(drawn)
        for figure in setting
    }


def _write_points(store: Store, swept: SweepDocument | None) -> None:
    """Write `search.csv`, or remove that of an earlier report."""
    if swept:
        store.write_text(POINTS, csv_table.render_points(swept))
    else:
        remove(store.folder / POINTS)


def _write_figures(store: Store, named: Mapping[str, Figure]) -> None:
    """Write a file for each figure, and remove those of an earlier report."""
    for old in (store.folder / "figures").glob("*.[sp][vn]g"):
        if old.suffix == ".png" or old.stem not in named:
            remove(old)
    for name, figure in named.items():
        store.write_text(f"figures/{name}.svg", figure.svg)
