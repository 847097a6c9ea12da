"""How a search stands: a live table above the bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from clipbench.cli.progress import PLAIN_EVERY, Bar, Plain, Silent

if TYPE_CHECKING:
    from clipbench.search.sweep import Standing


class SilentSpectator(Silent):
    """Notes and nothing else."""

    def stand(self, standings: Sequence[Standing]) -> None:
        pass


class PlainSpectator(Plain):
    """A line for each contender now and then, and at the end."""

    _stood = 0.0

    def stand(self, standings: Sequence[Standing]) -> None:
        now, over = time.monotonic(), all(each.tried == each.total for each in standings)
        if over or now - self._stood >= PLAIN_EVERY:
            self._stood = now
            for each in standings:
                if each.tried:
                    self._line(f"{each.label}: {', '.join(_words(each))}")


class LiveSpectator(Bar):
    """A table that is drawn anew, and the bar with the time left below it."""

    _standings: Sequence[Standing] = ()
    _live: Live | None = None

    def begin(self, lane_steps: int, trials: int, done: int) -> None:
        self._make(lane_steps, trials, done)
        self._live = Live(self._drawn(), console=self.console, transient=True, refresh_per_second=8)
        self._live.start()

    def end(self) -> None:
        if self._live:
            self._live.stop()
        self._live, self._standings = None, ()

    def stand(self, standings: Sequence[Standing]) -> None:
        self._standings = standings
        if self._live:
            self._live.update(self._drawn())

    def _drawn(self) -> Group:
        if not self._standings:
            return Group(self._progress)
        table = Table(box=None, pad_edge=False)
        for head in ("arm", "best so far", "score", "points", "pruned", "diverged"):
            table.add_column(head, justify="left" if head in ("arm", "best so far") else "right")
        for each in self._standings:
            score = "" if each.score is None else f"{each.score:.4g}"
            counts = (f"{each.tried}/{each.total}", str(each.pruned), str(each.diverged))
            table.add_row(each.label, each.best or "-", score, *counts)
        return Group(table, self._progress)


def spectator(console: Console, quiet: bool) -> SilentSpectator | PlainSpectator | LiveSpectator:
    """What suits the console."""
    if quiet:
        return SilentSpectator(console)
    return LiveSpectator(console) if console.is_terminal else PlainSpectator(console)


def _words(standing: Standing) -> list[str]:
    words = [f"{standing.tried} of {standing.total} points"]
    if standing.score is not None:
        words.append(f"best {standing.best} with {standing.score:.4g}")
    words += [f"{n} {what}" for n, what in ((standing.pruned, "pruned"), (standing.diverged, "diverged")) if n]
    return words
