"""Options that several commands take, declared once."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipbench.cli.app import uninterrupted
from clipbench.commands.devices import Device

if TYPE_CHECKING:
    from clipbench.commands.session import Settings


class Format(StrEnum):
    terminal = "terminal"
    markdown = "markdown"
    html = "html"
    latex = "latex"
    csv = "csv"
    json = "json"


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise typer.BadParameter(f"expected a number of processes or `auto`, got {text!r}.")
    return int(text)


Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Replace a value of the YAML; repeatable."),
]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, metavar="N", help="Train seeds 0 to N-1.")]
Json = Annotated[bool, typer.Option("--json", help="One machine-readable document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what is wrong.")]
Devices = Annotated[Device, typer.Option("--device", help="What trains; auto is a GPU if there is one.")]
Workers = Annotated[
    str,
    typer.Option("--workers", metavar="N|auto", callback=_workers, help="Processes; auto is one per core on a CPU."),
]
Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="The folder of all results.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        metavar="URI",
        help="MLflow; else MLFLOW_TRACKING_URI, else SQLite in the results folder.",
    ),
]
NoMlflow = Annotated[bool, typer.Option("--no-mlflow", help="Mirror nothing to MLflow.")]


def settings_of(
    device: Device,
    workers: str,
    seeds: int | None,
    sets: list[str] | None,
    results: Path,
    tracking_uri: str | None,
    no_mlflow: bool,
) -> Settings:
    """The options of every command that trains, as the library takes them."""
    with uninterrupted():
        from clipbench.commands.session import Settings
        from clipbench.tracking.uri import redact

    return Settings(
        device=device.value,
        workers=workers,  # type: ignore[arg-type]  # a number or None, by the option's callback
        seeds=seeds,
        sets=tuple(sets or ()),
        results=results,
        tracking_uri=tracking_uri,
        mirror=not no_mlflow,
        command=redact(shlex.join(["clipbench", *sys.argv[1:]])),
    )
