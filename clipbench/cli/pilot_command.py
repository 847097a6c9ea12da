"""The command pilot: percentiles of unclipped gradients, and thresholds as YAML to paste."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipbench.cli import pilot_text
from clipbench.cli.app import FAILED, WRITING, app, complain, say, say_json
from clipbench.cli.shared_options import TrainingOptions, trains
from clipbench.commands.interrupts import uninterrupted
from clipbench.errors import InputError, Place

if TYPE_CHECKING:
    from clipbench.commands.logged_pilot import LoggedPilot, LoggedSetting
    from clipbench.commands.pilot import Pilot, PilotSetting


@app.command(rich_help_panel=WRITING)
@trains
def pilot(
    options: TrainingOptions,
    experiment: Annotated[
        Path | None, typer.Argument(metavar="EXPERIMENT.yaml", help="Experiment file; or give --from.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="LOG",
            help="Train nothing; read the gradient norms that a training logged: a CSV, Parquet or JSON lines file, a "
            "run id of MLflow, a TensorBoard folder, Hugging Face's trainer_state.json, or a results folder.",
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME", help="Column, metric or tag of the norms, with `*`; can be repeated."),
    ] = None,
    of_tensors: Annotated[
        bool, typer.Option("--tensors", help="The columns are the norms of the tensors of one model.")
    ] = False,
    strategies: Annotated[
        list[str] | None,
        typer.Option("--strategy", metavar="NAME", help="Propose thresholds for this strategy only; can be repeated."),
    ] = None,
    thresholds: Annotated[
        list[float] | None,
        typer.Option("--threshold", metavar="C", help="Say what this threshold would clip; can be repeated."),
    ] = None,
) -> None:
    """Propose thresholds as YAML to paste, from training without clipping or from logged norms.

    Also prints the percentiles of gradient norms and elements. Nothing is stored.
    """
    _check(experiment, source, columns, of_tensors, thresholds, options)
    given = sorted(set(thresholds or ()))
    if source is not None:
        with uninterrupted():
            from clipbench.commands.logged_pilot import logged_pilot

        logged = logged_pilot(
            source,
            columns or (),
            options.settings,
            strategies or (),
            options.progress,
            given,
            of_tensors=of_tensors,
        )
        options.progress.stop()
        if options.as_json:
            say_json(_log_as_dict(logged))
        else:
            _say_all([_of_log(each, logged.left_out, quiet=options.quiet) for each in logged.settings], options.quiet)
        return
    with uninterrupted():
        from clipbench.commands.pilot import pilot

    assert experiment is not None
    found = pilot(experiment, options.settings, strategies or (), options.progress, given)
    if options.as_json:
        say_json(_as_dict(found))
    else:
        _say_all([_of_setting(setting, quiet=options.quiet) for setting in found.settings], options.quiet)
    for failure in found.failed:
        complain(failure)
    if found.failed:
        raise typer.Exit(FAILED)


def _check(
    experiment: Path | None,
    source: str | None,
    columns: Sequence[str] | None,
    of_tensors: bool,
    thresholds: Sequence[float] | None,
    options: TrainingOptions,
) -> None:
    place = Place("pilot")
    if (experiment is None) == (source is None):
        got = "neither" if experiment is None else "both"
        raise InputError.at(place, f"expected either EXPERIMENT.yaml or --from LOG, got {got}.")
    settings = options.settings
    of_log = {"--column": columns, "--tensors": of_tensors}
    of_training = {"--set": settings.sets, "--seeds": settings.seeds}
    for name, value in (of_log if source is None else of_training).items():
        if value:
            needs = "--from LOG" if source is None else "EXPERIMENT.yaml, which --from replaces"
            raise InputError.at(Place(name), f"is an option of {needs}.", "Leave it out.")
    for threshold in thresholds or ():
        if not 0 < threshold < math.inf:
            raise InputError.at(Place("--threshold"), f"expected a positive number, got {threshold:g}.")


def _say_all(parts: Sequence[Iterator[str]], quiet: bool) -> None:
    for number, lines in enumerate(parts):
        say(["", ""] if number and not quiet else [])
        say(lines)


def _of_setting(setting: PilotSetting, *, quiet: bool) -> Iterator[str]:
    """One setting as text: what was trained, the percentiles, and the YAML."""
    if not quiet:
        yield from _heading(setting)
        yield ""
        yield from pilot_text.percentiles(setting.rows, len(setting.statistics[0].names) if setting.statistics else 0)
        yield from _sampled(setting)
        yield ""
        yield from pilot_text.effects(setting.proposals)
    yield from pilot_text.clip_section(setting.proposals)


def _heading(setting: PilotSetting) -> Iterator[str]:
    first, seeds = setting.trials[0], len(setting.trials)
    labels = [part.label for part in (first.data, first.model, first.optimizer) if part]
    yield from textwrap.wrap(", ".join(labels), pilot_text.WIDTH)
    yield f"{setting.steps:,} steps of {seeds} seed{'s' if seeds > 1 else ''}, without clipping."
    if setting.diverged:
        steps = setting.diverged.values()
        when = f"at step {min(steps)}" if len(set(steps)) == 1 else f"between steps {min(steps)} and {max(steps)}"
        yield f"{len(steps)} of {seeds} diverged without clipping, {when}; the steps before are measured."
    if setting.every > 1:
        yield f"Percentiles and thresholds use every {_ordinal(setting.every)} step, starting with the first."


def _sampled(setting: PilotSetting) -> Iterator[str]:
    if setting.statistics and any(row.count for row in setting.rows):
        chosen, parameters = setting.statistics[0].elements["g"].shape[1], setting.statistics[0].parameters
        if chosen < parameters:
            yield f"elements: absolute values of {chosen:,} of {parameters:,}, chosen at random"


def _of_log(setting: LoggedSetting, left_out: Sequence[str], *, quiet: bool) -> Iterator[str]:
    """One setting of a log as text."""
    norms = setting.norms
    if not quiet:
        yield from textwrap.wrap(norms.label, pilot_text.WIDTH)
        trainings = len(norms.trainings)
        parts = [f"{norms.steps:,} norms", *([f"{trainings} trainings"] if trainings > 1 else [])]
        if norms.first is not None:
            parts.append(f"steps {norms.first:,} to {norms.last:,}")
        parts += [f"besides {norms.nonfinite:,} that are not finite"] if norms.nonfinite else []
        yield f"{', '.join(parts)}."
        yield ""
        yield from pilot_text.percentiles(setting.rows, len(norms.columns))
        yield ""
        yield from pilot_text.effects(setting.proposals)
    yield from pilot_text.clip_section(setting.proposals, left_out)


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _as_dict(found: Pilot) -> dict[str, Any]:
    return {
        "experiment": found.plan.experiment.name,
        "device": found.device,
        "failed": list(found.failed),
        "notes": list(found.plan.notes),
        "settings": [_setting_as_dict(setting) for setting in found.settings],
    }


def _setting_as_dict(setting: PilotSetting) -> dict[str, Any]:
    first = setting.trials[0]
    return {
        "data": first.data.label if first.data else None,
        "model": first.model.label,
        "optimizer": first.optimizer.label,
        "seeds": [trial.seed for trial in setting.trials],
        "steps": setting.steps,
        "every": setting.every,
        "diverged": {str(seed): step for seed, step in setting.diverged.items()},
        "percentiles": pilot_text.percentiles_as_dict(setting.rows),
        "thresholds": pilot_text.proposals_as_dicts(setting.proposals),
        "yaml": "\n".join(pilot_text.clip_section(setting.proposals)),
    }


def _log_as_dict(found: LoggedPilot) -> dict[str, Any]:
    return {
        "left_out": list(found.left_out),
        "settings": [
            {
                "source": setting.norms.source,
                "columns": list(setting.norms.columns),
                "trainings": len(setting.norms.trainings),
                "norms": setting.norms.steps,
                "nonfinite": setting.norms.nonfinite,
                "first_step": setting.norms.first,
                "last_step": setting.norms.last,
                "every": setting.norms.every,
                "notes": list(setting.notes),
                "percentiles": pilot_text.percentiles_as_dict(setting.rows),
                "thresholds": pilot_text.proposals_as_dicts(setting.proposals),
                "yaml": "\n".join(pilot_text.clip_section(setting.proposals, found.left_out)),
            }
            for setting in found.settings
        ],
    }
