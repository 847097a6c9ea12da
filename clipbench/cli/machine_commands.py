"""The commands about this machine: bench and doctor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from clipbench.cli.app import MACHINE, app, say, say_json
from clipbench.cli.shared_options import DeviceOption, Json, Results, TrackingUri, Workers
from clipbench.commands.devices import Device


@app.command(rich_help_panel=MACHINE)
def bench(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Model to measure, or one with its options: '{name: resnet, norm: batch}'. It can be repeated.  "
            "[default: mlp, cnn, rnn, transformer]",
        ),
    ] = None,
    lanes: Annotated[
        int, typer.Option("--lanes", min=8, metavar="N", help="Trials trained at once, a multiple of 8.")
    ] = 64,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, metavar="N", help="Repetitions; each measures the loop, then the cohort.")
    ] = 3,
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure JAX too, where it is installed, at mlp, cnn and rnn.")
    ] = False,
    device: DeviceOption = Device.auto,
    workers: Workers = "auto",
    as_json: Json = False,
) -> None:
    """Measure training speed, and that of a plain PyTorch loop."""
    from clipbench.commands import bench

    speeds = []
    if not as_json:
        say([bench.header(peers)])
    for speed in bench.measure(model or bench.MODELS, lanes, rounds, device.value, workers, peers):  # type: ignore[arg-type]
        speeds.append(asdict(speed))
        if not as_json:
            say([bench.line(speed, peers)])
    if as_json:
        say_json(speeds)


@app.command(rich_help_panel=MACHINE)
def doctor(results: Results = Path("results"), tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """Show the device, the versions of libraries and the MLflow store."""
    from clipbench.commands.doctor import examine
    from clipbench.commands.session import Settings

    findings = examine(Settings(results=results, tracking_uri=tracking_uri).uri)
    if as_json:
        say_json(findings)
    else:
        width = max(map(len, findings))
        say(f"{name:{width}}  {value}" for name, value in findings.items())
