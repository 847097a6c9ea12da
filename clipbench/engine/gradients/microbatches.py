"""Microbatches: how a batch is cut into parts that are clipped separately."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clipbench.core.trial import Component, Value

BATCH = "batch"


@dataclass(frozen=True)
class Scope:
    """The number of parts a batch is cut into; parts of one example are divided by the expected batch size."""

    parts: int = 0  # 0: the batch is not cut
    expected: int = 0  # 0: the average is over the examples of the batch

    @classmethod
    def of(cls, scope: Value, batch: int) -> Scope:
        if isinstance(scope, Component):
            return cls(int(scope["n"]))  # type: ignore[arg-type]
        return cls(batch, batch) if scope == "sample" else cls()

    def sizes(self, examples: int) -> list[int]:
        """Return the examples of each part: as equal as possible, larger parts first, empty ones last."""
        size, more = divmod(examples, self.parts or 1)
        return [size + 1] * more + [size] * ((self.parts or 1) - more)

    def alike(self, examples: int) -> Iterator[tuple[slice, int, int]]:
        """Yield runs of parts of one size above 0, the first example of each run, and that size."""
        parts = self.parts or 1
        size, more = divmod(examples, parts)
        if more:
            yield slice(0, more), 0, size + 1
        if size:
            yield slice(more, parts), more * (size + 1), size

    def shares(self, examples: int) -> list[float]:
        """Return the weight of each part's mean in the average."""
        return [size / (self.expected or examples) for size in self.sizes(examples)]


def scope_of(clip: Component) -> Value:
    """Return the scope of an arm: batch, sample, or a component `shards`."""
    return clip.as_dict().get("scope") or BATCH
