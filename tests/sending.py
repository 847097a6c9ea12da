"""What the process that sends to MLflow does, in this process."""

from dataclasses import dataclass

from clipbench.tracking.sender import Sender


@dataclass
class Pushed:
    trials: int
    files: int
    problem: str | None


def push(folder, name, uri, artifacts_root, invocation, ids=None, on_progress=None):
    sender = Sender(folder, name, uri, artifacts_root, invocation)
    trials = sender.send(ids, on_progress)
    return Pushed(trials, *sender.close())
