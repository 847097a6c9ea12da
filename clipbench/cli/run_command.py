"""The command run: train what is missing and print the comparison, or with --dry-run what would be trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipbench.cli.app import FAILED, MAIN, app, complain, say, say_json
from clipbench.cli.shared_options import ExperimentFile, TensorBoard, TrainingOptions, trains
from clipbench.commands.interrupts import uninterrupted

if TYPE_CHECKING:
    from clipbench.commands.run import RunPreview
    from clipbench.commands.session import Finished, Session


@app.command(rich_help_panel=MAIN)
@trains
def run(
    experiment: ExperimentFile,
    options: TrainingOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be trained and how long it would take.")
    ] = False,
    tensorboard: TensorBoard = False,
    frozen: Annotated[
        bool,
        typer.Option("--frozen", help="Train the trials of a results folder's experiment.yaml as they were, or none."),
    ] = False,
) -> None:
    """Train what is missing, compare the arms and write the report.

    Results are logged to MLflow too. After an interruption, the same command continues.
    """
    if frozen and (options.settings.sets or options.settings.seeds):
        raise typer.BadParameter("takes the file as it is, without --set and --seeds.", param_hint="--frozen")
    options = replace(options, settings=replace(options.settings, frozen=frozen))
    if dry_run:
        _preview(experiment, options)
        return
    with uninterrupted():
        from clipbench.commands.run import run

    train(options, lambda session: run(session, experiment), tensorboard=tensorboard)


def train(options: TrainingOptions, work: Callable[[Session], Finished], *, tensorboard: bool = False) -> None:
    """Do the work of a command that trains, print its report, and wait for MLflow."""
    with uninterrupted():
        from clipbench.cli.report_command import print_report
        from clipbench.commands.session import Session
        from clipbench.reporting.write import import_libraries

        import_libraries()
    with Session(replace(options.settings, tensorboard=tensorboard), options.progress) as session:
        finished = work(session)
        options.progress.stop()
        if not options.as_json and not options.quiet:
            print_report(finished)
        problem = session.finish()
    if problem and problem not in session.told:
        complain(f"note: {problem}")
    if options.as_json:
        say_json(_document(finished, session, problem))
    for failure in finished.failed:
        complain(f"{failure} Run the same command to retry.")
    if finished.failed:
        raise typer.Exit(FAILED)


def _document(finished: Finished, session: Session, problem: str | None) -> dict[str, Any]:
    from clipbench.reporting.formats import json_report

    mirror = session.mirror
    return {
        "experiment": finished.subject.name,
        "folder": str(finished.folder),
        "device": finished.device,
        "trials": len(finished.subject.ids),
        "trained": finished.trained,
        "failed": list(finished.failed),
        "mlflow": mirror and {"pushed": mirror.state.pushed, "pending": mirror.state.pending, "problem": problem},
        "notes": list(finished.notes),
        "report": json_report.as_dict(finished.report),
    }


def _preview(experiment: Path, options: TrainingOptions) -> None:
    with uninterrupted():
        from clipbench.commands.run import preview

    found = preview(experiment, options.settings)
    options.progress.stop()
    if options.as_json:
        say_json(_preview_document(found))
    else:
        say(_preview_lines(found))


def _preview_lines(preview: RunPreview) -> Iterator[str]:
    from clipbench.cli.experiment_summary import count, summary_lines
    from clipbench.commands.progress import duration

    yield from summary_lines(preview.plan.experiment)
    document = _preview_document(preview)
    plan, script = preview.plan, preview.plan.experiment.is_script
    how = "looped" if any(cohort.loop_reason for cohort in plan.cohorts) else "vectorised"
    parts = "processes" if script else f"{count(len(preview.chunks), 'chunk')} of {how} lanes"
    yield f"  done       {preview.done} of {len(preview.plan.trials)} trials"
    yield (
        f"  to train   {document['missing']} trials in {parts}, {count(preview.workers, 'worker')} on {preview.device}"
    )
    known = not math.isnan(preview.seconds)
    yield f"  time       {f'about {duration(preview.seconds)}' if known else 'not known before a trial is done'}"
    if not script:
        yield f"  memory     about {preview.bytes / 2**20:,.0f} MB"
    yield from (f"  note       {note}" for note in preview.plan.notes if note not in preview.plan.experiment.notes)


def _preview_document(preview: RunPreview) -> dict[str, Any]:
    from clipbench.cli.experiment_summary import summary

    experiment = preview.plan.experiment
    return {
        **summary(experiment),
        "trials": len(preview.plan.trials),
        "done": preview.done,
        "missing": sum(len(chunk.trials) for chunk in preview.chunks),
        "cohorts": len(preview.plan.cohorts),
        "chunks": len(preview.chunks),
        "workers": preview.workers,
        "device": preview.device,
        "seconds": None if math.isnan(preview.seconds) else preview.seconds,
        "bytes": preview.bytes,
    }
