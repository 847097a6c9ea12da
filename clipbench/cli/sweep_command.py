"""The command that searches: sweep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipbench.cli.app import MAIN, app, complain, say, say_json, uninterrupted
from clipbench.cli.options import (
    Devices,
    Json,
    NoMlflow,
    Quiet,
    Results,
    Seeds,
    Sets,
    TrackingUri,
    Workers,
    settings_of,
)
from clipbench.commands.devices import Device

if TYPE_CHECKING:
    from clipbench.commands.session import Settings
    from clipbench.planning.contender import Contender, Hyperparameter
    from clipbench.search.sweep import SweepOptions, SweepPreview


@app.command(rich_help_panel=MAIN)
def sweep(
    experiment: Annotated[Path, typer.Argument(metavar="EXPERIMENT.yaml", help="The experiment.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be searched.")] = False,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, metavar="N", help="Points of each arm in the end; else sweep.trials."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", metavar="URL", help="A database for Optuna; else a journal in the results folder."),
    ] = None,
    device: Devices = Device.auto,
    workers: Workers = "auto",
    seeds: Seeds = None,
    sets: Sets = None,
    results: Results = Path("results"),
    tracking_uri: TrackingUri = None,
    no_mlflow: NoMlflow = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search each arm's best threshold, confirm the winners on fresh seeds, compare them."""
    with uninterrupted():
        from clipbench.search.sweep import SweepOptions

    settings = settings_of(device, workers, seeds, sets, results, tracking_uri, no_mlflow)
    asking = SweepOptions(trials, storage)
    if dry_run:
        _preview(experiment, settings, asking, as_json)
    else:
        _sweep(experiment, settings, asking, as_json, quiet)


def _preview(experiment: Path, settings: Settings, asking: SweepOptions, as_json: bool) -> None:
    with uninterrupted():
        from clipbench.commands.progress import make_progress
        from clipbench.commands.session import Session
        from clipbench.search.sweep import left_out, preview

    found = preview(Session(settings, make_progress(quiet=True)), experiment, asking)
    if as_json:
        say_json(_document(found))
    else:
        say(_lines(found))
        for note in (*found.plan.notes, *left_out(found.contenders)):
            complain(f"note: {note}")


def _lines(found: SweepPreview) -> Iterator[str]:
    search, searched = found.search, [each for each in found.contenders if each.hyperparameters]
    objectives = " and ".join(
        f"{each.name} ({'higher' if each.higher else 'lower'} is better)" for each in search.objectives
    )
    trials = len(searched) * search.trials * len(search.seeds)
    yield f"{search.experiment}: {search.trials} points of each of {len(searched)} arms on {_seeds(search.seeds)}"
    yield f"  judged by  {objectives}"
    yield f"  by         {search.sampler}, {search.batch} points a round; pruner {search.pruner}"
    yield f"  trials     {trials} at most; then {len(found.contenders)} arms on {_seeds(search.confirm_seeds)}"
    for contender in found.contenders:
        options = "; ".join(map(_words, contender.hyperparameters)) or "nothing to search"
        yield f"  arm        {contender.label}: {options}"


def _words(param: Hyperparameter) -> str:
    if param.choices:
        return f"{param.path} among {', '.join(map(str, param.choices))}"
    return f"{param.path} from {param.low:g} to {param.high:g}{' (log)' if param.log else ''}"


def _seeds(seeds: tuple[int, ...]) -> str:
    if len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _document(found: SweepPreview) -> dict[str, Any]:
    search = found.search
    return {
        "experiment": search.experiment,
        "trials": search.trials,
        "batch": search.batch,
        "sampler": search.sampler,
        "pruner": search.pruner,
        "search_seeds": list(search.seeds),
        "confirm_seeds": list(search.confirm_seeds),
        "objectives": [{"name": each.name, "higher": each.higher} for each in search.objectives],
        "contenders": [_contender(each) for each in found.contenders],
    }


def _contender(contender: Contender) -> dict[str, Any]:
    return {
        "label": contender.label,
        "hyperparameters": [_described(param) for param in contender.hyperparameters],
    }


def _described(param: Hyperparameter) -> dict[str, Any]:
    if param.choices:
        return {"path": param.path, "key": param.key, "choices": list(param.choices)}
    return {
        "path": param.path,
        "key": param.key,
        "low": param.low,
        "high": param.high,
        "log": param.log,
    }


def _sweep(experiment: Path, settings: Settings, asking: SweepOptions, as_json: bool, quiet: bool) -> None:
    with uninterrupted():
        from clipbench.cli.run_commands import conclude
        from clipbench.commands.progress import make_progress
        from clipbench.commands.session import Session
        from clipbench.search import sweep as sweeping

    session = Session(settings, make_progress(quiet=quiet))
    conclude(session, lambda: sweeping.sweep(session, experiment, asking), as_json, quiet)
