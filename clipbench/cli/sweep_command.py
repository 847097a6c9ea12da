"""The command sweep: search and confirm thresholds, or with --dry-run print what would be searched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipbench.cli.app import MAIN, app, complain, say, say_json
from clipbench.cli.shared_options import ExperimentFile, TensorBoard, TrainingOptions, trains
from clipbench.commands.interrupts import uninterrupted

if TYPE_CHECKING:
    from clipbench.search.sweep import SweepOptions, SweepPreview


@app.command(rich_help_panel=MAIN)
@trains
def sweep(
    experiment: ExperimentFile,
    options: TrainingOptions,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be searched.")] = False,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, metavar="N", help="Total search points per arm, instead of sweep.trials."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", metavar="URL", help="Database for Optuna; else a journal in the results folder."),
    ] = None,
    tensorboard: TensorBoard = False,
) -> None:
    """Search each arm's best threshold and confirm it on fresh seeds.

    Then the confirmed arms are compared as by `run`. After an interruption, the same command continues.
    """
    with uninterrupted():
        from clipbench.cli.run_command import train
        from clipbench.search.sweep import SweepOptions, sweep

    wanted = SweepOptions(trials, storage)
    if dry_run:
        _preview(experiment, options, wanted)
    else:
        train(options, lambda session: sweep(session, experiment, wanted), tensorboard=tensorboard)


def _preview(experiment: Path, options: TrainingOptions, wanted: SweepOptions) -> None:
    with uninterrupted():
        from clipbench.commands.session import Session
        from clipbench.search.sweep import notes, preview

    found = preview(Session(options.settings, options.progress), experiment, wanted)
    options.progress.stop()
    if options.as_json:
        say_json(_document(found))
    else:
        say(_lines(found))
        for note in (*found.plan.notes, *notes(found.contenders)):
            complain(f"note: {note}")


def _lines(found: SweepPreview) -> Iterator[str]:
    from clipbench.cli.experiment_summary import range_words

    search, searched = found.search, [each for each in found.contenders if each.hyperparameters]
    objectives = " and ".join(
        f"{each.name} ({'higher' if each.higher else 'lower'} is better)" for each in search.objectives
    )
    trials = len(searched) * search.trials * len(search.seeds)
    yield f"{search.experiment}: {search.trials} points for each of {len(searched)} arms on {_seeds(search.seeds)}"
    yield f"  objective  {objectives}"
    yield f"  sampler    {search.sampler}, {search.batch} points per round; pruner {search.pruner}"
    yield f"  trials     at most {trials}; then {len(found.contenders)} arms on {_seeds(search.confirm_seeds)}"
    for contender in found.contenders:
        ranges = "; ".join(map(range_words, contender.hyperparameters)) or "nothing to search"
        yield f"  arm        {contender.label}: {ranges}"


def _seeds(seeds: tuple[int, ...]) -> str:
    if len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _document(found: SweepPreview) -> dict[str, Any]:
    from clipbench.cli.experiment_summary import range_values

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
        "contenders": [
            {"label": contender.label, "hyperparameters": list(map(range_values, contender.hyperparameters))}
            for contender in found.contenders
        ],
    }
