"""The command that sends trials to MLflow, as its parent run describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clipbench.tracking.run_values import PARAM_LENGTH, TAG_LENGTH, key
from clipbench.tracking.uri import redact


@dataclass(frozen=True)
class Invocation:
    """The command that sends trials, as its parent run describes it."""

    command: str
    content_hash: str = ""
    git_commit: str = ""
    version: str = ""
    device: str = ""
    options: Mapping[str, str] = field(default_factory=dict)  # of the experiment
    within: str = ""  # the run of the caller's own under which all runs are nested, in its experiment

    def params(self) -> dict[str, str]:
        return {key(name): text[:PARAM_LENGTH] for name, text in self.options.items()}

    def tags(self) -> dict[str, str]:
        names = ("command", "content_hash", "git_commit", "version", "device")
        own = {f"clipbench.{name}": redact(getattr(self, name))[:TAG_LENGTH] for name in names}
        return {name: value for name, value in {**own, "mlflow.source.git.commit": self.git_commit}.items() if value}
