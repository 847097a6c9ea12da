"""The commands about this machine: bench and doctor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from clipbench.cli.app import MACHINE, app, say, say_json
from clipbench.cli.options import Devices, Json, Results, TrackingUri, Workers
from clipbench.commands.devices import Device


@app.command(rich_help_panel=MACHINE)
def bench(
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="NAME", help="mlp, cnn, rnn and transformer, if not said.")
    ] = None,
    lanes: Annotated[int, typer.Option("--lanes", min=8, help="Trials at once, a multiple of 8.")] = 64,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Each measures the loop, then the cohort.")] = 3,
    device: Devices = Device.auto,
    workers: Workers = "auto",
    as_json: Json = False,
) -> None:
    """Measure this machine: the cohort engine beside the plain PyTorch loop, in turns."""
    from clipbench.commands import bench

    figures = []
    if not as_json:
        say([bench.HEADER])
    for figure in bench.measure(model or bench.MODELS, lanes, rounds, device.value, workers):  # type: ignore[arg-type]
        figures.append(asdict(figure))
        if not as_json:
            say([bench.line(figure)])
    if as_json:
        say_json(figures)


@app.command(rich_help_panel=MACHINE)
def doctor(results: Results = Path("results"), tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """Show device, versions, the MLflow store, and what is optional and missing."""
    from clipbench.commands.doctor import examine
    from clipbench.commands.session import Settings

    findings = examine(Settings(results=results, tracking_uri=tracking_uri).uri)
    if as_json:
        say_json(findings)
    else:
        width = max(map(len, findings))
        say(f"{name:{width}}  {value}" for name, value in findings.items())
