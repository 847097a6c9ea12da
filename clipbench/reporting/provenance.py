"""How to reproduce a report: commands, trials, seeds, device, and versions at training and now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from clipbench.analysis.subject import Subject
from clipbench.core.trial import digest
from clipbench.reporting import numbers
from clipbench.reporting.notes import Fact
from clipbench.store import run_history
from clipbench.store.run_history import TrainingRun

MOST_COMMANDS = 5


@dataclass(frozen=True)
class Provenance:
    """Everything that is needed to train the same trials."""

    command: str
    facts: tuple[Fact, ...] = ()
    yaml: str = ""  # the experiment with all defaults


def of(subject: Subject, records: pd.DataFrame, known: Sequence[TrainingRun] = ()) -> Provenance:
    """The provenance of the trials of a subject: from their records, and from the commands that the store lists."""
    facts = (
        *_commands(known),
        Fact("trials", f"{len(subject.ids)} ({len(subject.seeds)} seeds: {_seeds(subject.seeds)})", TRIALS),
        Fact("content hash", digest(sorted(subject.ids)), HASH),
        Fact("trained on", _used(records, "device"), "The devices in the records of these trials."),
        Fact("engine", _used(records, "engine"), ENGINE),
        Fact("engine note", _used(records, "engine_note"), "Why trials were not trained by the fastest method."),
        *_versions(known),
    )
    return Provenance(subject.command, tuple(fact for fact in facts if fact.words), subject.yaml)


TRIALS = "A trial is one training of one arm with one seed. The seed determines initial weights, batches and noise."
HASH = "Hash of the ids of all trials. Each id is the hash of the trial's options, its data and the user's own code."
ENGINE = (
    "How trials were trained: by compiled kernels (native), together as one tensor program of PyTorch (replay, "
    "eager), or one after another (looped)."
)
TYPED = "The command as typed. Trials that were already trained were not trained again."
THEN = "Versions at training. With other versions, results may differ in their last digits."
NOW = "Versions when this page was written and its statistics were computed."


def _commands(known: Sequence[TrainingRun]) -> Iterator[Fact]:
    for run in known[-MOST_COMMANDS:]:
        commit = f", commit {run.git_commit[:12]}" if run.git_commit else ""
        yield Fact(f"command ({run.when[:10]})", f"{run.command} ({numbers.count(run.trials, 'trial')}{commit})", TYPED)


def _versions(known: Sequence[TrainingRun]) -> Iterator[Fact]:
    """Versions at training and now, in one line if they are the same."""
    now = _environment(run_history.versions(), run_history.python(), run_history.machine())
    then = list(dict.fromkeys(_environment(run.versions, run.python, run.machine) for run in known))
    if then == [now]:
        yield Fact("versions", now, f"{THEN} The same versions wrote this page.")
        return
    for words in then:
        yield Fact("trained with", words, THEN)
    yield Fact("reported with", now if then else f"{now}; the versions at training are not known", NOW)


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
