"""The command pilot: percentiles of unclipped gradients, and thresholds as YAML to paste."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipbench.cli.app import FAILED, WRITING, app, complain, say, say_json
from clipbench.cli.shared_options import ExperimentFile, TrainingOptions, trains
from clipbench.commands.interrupts import uninterrupted

if TYPE_CHECKING:
    from clipbench.commands.pilot import Pilot, PilotSetting
    from clipbench.pilot.results import Proposal

MOST_TENSORS = 12  # that a terminal lists
MOST_LETTERS = 25  # of the name of a tensor


@app.command(rich_help_panel=WRITING)
@trains
def pilot(
    experiment: ExperimentFile,
    options: TrainingOptions,
    strategies: Annotated[
        list[str] | None,
        typer.Option("--strategy", metavar="NAME", help="Propose thresholds for this strategy only; can be repeated."),
    ] = None,
) -> None:
    """Train without clipping and propose thresholds as YAML to paste.

    Also prints the percentiles of gradient norms and elements. MLflow is not used.
    """
    with uninterrupted():
        from clipbench.commands.pilot import pilot

    found = pilot(experiment, options.settings, strategies or (), options.progress)
    if options.as_json:
        say_json(_document(found))
    else:
        for number, setting in enumerate(found.settings):
            say(["", ""] if number and not options.quiet else [])
            say(_yaml(setting) if options.quiet else _lines(setting))
    for failure in found.failed:
        complain(failure)
    if found.failed:
        raise typer.Exit(FAILED)


def _lines(setting: PilotSetting) -> Iterator[str]:
    """One setting as text: what was trained, the percentiles, and the YAML."""
    yield from _heading(setting)
    yield ""
    yield from _table(setting)
    yield ""
    yield from _yaml(setting)


def _heading(setting: PilotSetting) -> Iterator[str]:
    first, seeds = setting.trials[0], len(setting.trials)
    labels = [part.label for part in (first.data, first.model, first.optimizer) if part]
    yield from textwrap.wrap(", ".join(labels), 80)
    yield f"{setting.steps:,} steps of {seeds} seed{'s' if seeds > 1 else ''}, without clipping."
    if setting.diverged:
        steps = setting.diverged.values()
        when = f"at step {min(steps)}" if len(set(steps)) == 1 else f"between steps {min(steps)} and {max(steps)}"
        yield f"{len(steps)} of {seeds} diverged without clipping, {when}; the steps before are measured."
    if setting.every > 1:
        yield f"Percentiles and thresholds use every {_ordinal(setting.every)} step, starting with the first."


def _table(setting: PilotSetting) -> Iterator[str]:
    from clipbench.commands.pilot import PERCENTS

    rows = [row for row in setting.rows if row.count]
    tensors = len(setting.statistics[0].names) if setting.statistics else 0
    shown = rows if tensors <= MOST_TENSORS else rows[:-tensors]
    if not shown:
        yield "No finite step, nothing to measure."
        return
    width = max(len(_shortened(row.name)) for row in shown)
    heads = ["max" if percent == 100 else f"{percent} %" for percent in PERCENTS]
    yield f"{'before clipping':{width}} " + "".join(f"{head:>9}" for head in heads)
    for row in shown:
        yield f"{_shortened(row.name):{width}} " + "".join(f"{_size(value):>9}" for value in row.values)
    chosen, parameters = setting.statistics[0].elements["g"].shape[1], setting.statistics[0].parameters
    if chosen < parameters:
        yield f"elements: absolute values of {chosen:,} of {parameters:,}, chosen at random"


def _shortened(name: str) -> str:
    """Shorten the name of a tensor and keep its end, which tells more."""
    return name if len(name) <= MOST_LETTERS else f"norm, ...{name[9 - MOST_LETTERS :]}"


def _yaml(setting: PilotSetting) -> Iterator[str]:
    """The section `clip` of an experiment."""
    yield "clip:"
    yield "  - none"
    for proposal in setting.proposals:
        comment = _comment(proposal)
        if comment:
            yield f"  # {comment}"
        yield f"  - {_arm(proposal)}"


def _arm(proposal: Proposal) -> str:
    name = json.dumps(proposal.rule.name) if ":" in proposal.rule.name else proposal.rule.name
    if not proposal.levels:
        return name
    return f"{{name: {name}, threshold: [{', '.join(_number(level.threshold) for level in proposal.levels)}]}}"


def _number(value: float) -> str:
    text = f"{value:g}"
    return text.replace("e", ".0e") if "e" in text and "." not in text else text  # 1e-05 is a string in YAML


def _comment(proposal: Proposal) -> str:
    shares = ", ".join(_percent(level.share) for level in proposal.levels)
    if proposal.by == "fires":
        return f"clips {shares} of {proposal.unit}"
    if proposal.by == "keeps":
        return f"median remaining norm: {shares}"
    return "no suggestion; the default search range of the rule" if proposal.levels else ""


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.3g} %"


def _size(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "-"


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _document(found: Pilot) -> dict[str, Any]:
    return {
        "experiment": found.plan.experiment.name,
        "device": found.device,
        "failed": list(found.failed),
        "notes": list(found.plan.notes),
        "settings": [_setting(setting) for setting in found.settings],
    }


def _setting(setting: PilotSetting) -> dict[str, Any]:
    from clipbench.commands.pilot import PERCENTS

    first = setting.trials[0]
    return {
        "data": first.data.label if first.data else None,
        "model": first.model.label,
        "optimizer": first.optimizer.label,
        "seeds": [trial.seed for trial in setting.trials],
        "steps": setting.steps,
        "every": setting.every,
        "diverged": {str(seed): step for seed, step in setting.diverged.items()},
        "percentiles": {
            row.name: {"count": row.count, **{str(p): v for p, v in zip(PERCENTS, row.values, strict=True)}}
            for row in setting.rows
            if row.count
        },
        "thresholds": [
            {
                "strategy": proposal.rule.name,
                "by": proposal.by,
                "unit": proposal.unit or None,
                "thresholds": [level.threshold for level in proposal.levels],
                "shares": [None if math.isnan(level.share) else level.share for level in proposal.levels],
            }
            for proposal in setting.proposals
        ],
        "yaml": "\n".join(_yaml(setting)),
    }
