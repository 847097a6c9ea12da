"""Wait until MLflow has the trials of a store, and show how far it is and when it is given up."""

from __future__ import annotations

import math

from clipbench.commands.progress import Progress, Work
from clipbench.tracking.mirror import Mirror
from clipbench.tracking.mirror_state import MirrorState


def finish(
    mirror: Mirror, progress: Progress, title: str, patience: float, most: float = math.inf, expected: int | None = 0
) -> MirrorState:
    """Wait at most `most` seconds, or `patience` seconds without an answer, for `expected` trials or more.

    The `title` has a place for what is sent. Nothing is shown as long as nothing is expected.
    """

    def begin(pending: int) -> None:
        what = f"{pending} trial{'' if pending == 1 else 's'}" if pending else "what is missing"
        progress.start(title.replace("{}", what), pending, pending)

    def tell(state: MirrorState) -> None:
        work, sent = progress.work, state.pushed - pushed
        if sent + state.pending > work.trials:  # more than was known
            begin(sent + state.pending)
        progress.work.finished = sent
        progress.advance(sent - progress.work.done)

    pushed = mirror.state.pushed
    progress.work = Work("")
    if expected is None or expected:
        begin(expected or 0)
    try:
        return mirror.finish(patience, most, tell=tell)
    finally:
        progress.stop()
