"""Subjects that are kept beside the trials, so that a report of what has not changed plans nothing anew.

A report needs no torch, and a plan does. What was typed and what a plan was made from is kept with its subject: where
any of it is no longer the same, the subject is as good as not there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from clipbench.analysis.report_model import ReportOptions
from clipbench.analysis.subject import Subject
from clipbench.config.claim_language import Expectation, Side
from clipbench.config.sections import Claim
from clipbench.config.yaml_file import read_text
from clipbench.core.trial import digest
from clipbench.errors import Place
from clipbench.planning import source_files
from clipbench.planning.plan import Plan
from clipbench.store import Store, run_history
from clipbench.store.atomic_files import remove

FOLDER = ".subjects"
MOST = 8  # of one store: with other `--set`s and `--seeds`; the oldest are forgotten


@dataclass(frozen=True)
class Request:
    """An experiment as it was asked for: its file, what that said, and the options of the command."""

    path: str
    text: str
    sets: tuple[str, ...] = ()
    seeds: int | None = None
    command: str = "run"  # whose trials it is about

    @classmethod
    def of(cls, path: str | Path, sets: Sequence[str] = (), seeds: int | None = None, command: str = "run") -> Request:
        return cls(str(path), read_text(Path(path)), tuple(sets), seeds, command)

    @property
    def key(self) -> str:
        """Another where the same words might lead to another plan, but for the files that it was made from."""
        installed = [
            source_files.version(),
            run_history.versions(),
            run_history.python(),
            run_history.machine(),
            sys.path,
        ]
        return digest([*asdict(self).values(), str(Path(self.path).absolute()), *installed])


def keep(store: Store, request: Request, plan: Plan, subject: Subject) -> None:
    """Keep what a request came to; nothing where nobody knows which files its plan was made from."""
    if plan.sources is None:
        return
    content = {"sources": dict(plan.sources), "subject": asdict(subject) | {"options": _options(subject.options)}}
    store.write_text(f"{FOLDER}/{request.key}.json", json.dumps(content))
    known = sorted((store.folder / FOLDER).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in known[:-MOST]:
        remove(path)


def find(store: Store, request: Request) -> Subject | None:
    """What the request came to before, if it would come to the same again."""
    try:
        content = json.loads((store.folder / FOLDER / f"{request.key}.json").read_text("utf-8"))
        if source_files.digests(content["sources"]) != content["sources"]:
            return None
        return _subject(content["subject"])
    except (OSError, ValueError, TypeError, KeyError):  # it is not there, or not whole
        return None


def _options(options: ReportOptions) -> dict[str, Any]:
    claims = [(claim.model_dump(), asdict(expectation)) for claim, expectation in options.claims]
    return asdict(replace(options, claims=())) | {"claims": claims}


def _subject(values: Mapping[str, Any]) -> Subject:
    options = values["options"]
    claims = tuple((Claim(**claim), _expectation(expectation)) for claim, expectation in options["claims"])
    restored = ReportOptions(
        **{**options, "place": Place(**options["place"]), "claims": claims, "norm_rules": tuple(options["norm_rules"])}
    )
    return Subject(**{**values, "options": restored, "seeds": tuple(values["seeds"])})


def _expectation(values: Mapping[str, Any]) -> Expectation:
    return Expectation(**{**values, "left": _side(values["left"]), "right": _side(values["right"])})


def _side(values: Mapping[str, Any]) -> Side:
    pairs = {name: tuple(map(tuple, values[name])) for name in ("where", "options")}
    return Side(**{**values, **pairs, "minus": _side(values["minus"]) if values["minus"] else None})
