"""What a rule clips before it is averaged: the batch as a whole, each of its parts, or each example."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clipbench.core.trial import Component, Value

BATCH = "batch"


@dataclass(frozen=True)
class Scope:
    """Into how many parts a batch is cut; parts of one example are divided by the expected batch size."""

    parts: int = 0  # 0: it is not cut
    expected: int = 0  # 0: parts are averaged over the examples that there are

    @classmethod
    def of(cls, scope: Value, batch: int) -> Scope:
        if isinstance(scope, Component):
            return cls(int(scope["n"]))  # type: ignore[arg-type]
        return cls(batch, batch) if scope == "sample" else cls()

    def sizes(self, examples: int) -> list[int]:
        """Examples in each part: as equal as can be, larger ones first; some have none if there are too few."""
        size, more = divmod(examples, self.parts)
        return [size + 1] * more + [size] * (self.parts - more)

    def alike(self, examples: int) -> Iterator[tuple[slice, int]]:
        """Runs of parts of one size that is not 0, and that size."""
        size, more = divmod(examples, self.parts)
        if more:
            yield slice(0, more), size + 1
        if size:
            yield slice(more, self.parts), size

    def shares(self, examples: int) -> list[float]:
        """What each part's mean counts for in the average."""
        return [size / (self.expected or examples) for size in self.sizes(examples)]


def scope_of(clip: Component) -> Value:
    """What an arm is written with: batch, sample, or a component `shards`."""
    return clip.as_dict().get("scope") or BATCH
