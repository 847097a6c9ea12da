"""How a report came to be, so that it can be made again: commands, trials, seeds, device, versions then and now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from clipbench.analysis.subject import Subject
from clipbench.core.trial import digest
from clipbench.reporting import numbers
from clipbench.store import run_history
from clipbench.store.run_history import TrainingRun

MOST_COMMANDS = 5


@dataclass(frozen=True)
class Fact:
    """A line of what is needed to make it again, and what it means."""

    term: str
    words: str
    meaning: str


@dataclass(frozen=True)
class Provenance:
    """What somebody else needs to train the same trials."""

    command: str
    facts: tuple[Fact, ...] = ()
    yaml: str = ""  # the experiment, every default filled in


def of(subject: Subject, records: pd.DataFrame, known: Sequence[TrainingRun] = ()) -> Provenance:
    """The provenance of the subject's trials: from them, and from what the store knows of the commands before."""
    facts = (
        *_commands(known),
        Fact("trials", f"{len(subject.ids)} ({len(subject.seeds)} seeds: {_seeds(subject.seeds)})", TRIALS),
        Fact("content hash", digest(sorted(subject.ids)), HASH),
        Fact("trained on", _used(records, "device"), "The device that records of these trials name."),
        Fact("engine", _used(records, "engine"), ENGINE),
        *_versions(known),
    )
    return Provenance(subject.command, tuple(fact for fact in facts if fact.words), subject.yaml)


TRIALS = "Trainings of one arm with one seed. A seed fixes initial weights, batches and noise."
HASH = "Of the names of all trials, each the hash of its options, its data and the user's own code."
ENGINE = "How trials were trained: as one tensor program (plan, graph, vmap), or one after another (loop)."
TYPED = "As it was typed; what was trained before it was not trained again."
THEN = "Installed when these trials were trained. Other versions may train to other last digits."
NOW = "Installed when this page was written; they computed its statistics."


def _commands(known: Sequence[TrainingRun]) -> Iterator[Fact]:
    for run in known[-MOST_COMMANDS:]:
        commit = f", commit {run.git_commit[:12]}" if run.git_commit else ""
        yield Fact(f"typed {run.when[:10]}", f"{run.command} ({numbers.count(run.trials, 'trial')}{commit})", TYPED)


def _versions(known: Sequence[TrainingRun]) -> Iterator[Fact]:
    """Then and now in one line where they are the same."""
    now = _environment(run_history.versions(), run_history.python(), run_history.machine())
    then = list(dict.fromkeys(_environment(run.versions, run.python, run.machine) for run in known))
    if then == [now]:
        yield Fact("versions", now, f"{THEN} The same wrote this page.")
        return
    for words in then:
        yield Fact("trained with", words, THEN)
    yield Fact("reported with", now if then else f"{now}; those of the training are not known", NOW)


def _environment(versions: Mapping[str, str], python: str, machine: str) -> str:
    return ", ".join((*(f"{name} {version}" for name, version in versions.items()), f"Python {python}", machine))


def _seeds(seeds: tuple[int, ...]) -> str:
    first, last = min(seeds, default=0), max(seeds, default=0)
    if len(seeds) > 2 and sorted(seeds) == list(range(first, last + 1)):
        return f"{first} to {last}"
    return ", ".join(map(str, seeds))


def _used(records: pd.DataFrame, column: str) -> str:
    if column not in records:
        return ""
    return ", ".join(sorted({str(value) for value in records[column].dropna()}))
