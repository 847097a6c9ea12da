"""What the process that sends to MLflow does, in this process."""

from dataclasses import dataclass

from clipbench.tracking.sender import Sender


@dataclass
class Pushed:
    trials: int
    files: int
    problem: str | None


def push(folder, name, uri, artifacts_root, invocation, ids=None, on_trial=lambda sender: None):
    sender = Sender(folder, name, uri, artifacts_root, invocation)
    trials = sender.send(ids, lambda: on_trial(sender))
    return Pushed(trials, *sender.close())
