"""Parts: how the examples of a step are cut into parts, which are clipped separately, or accumulated before that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from clipbench.core.trial import Component, Value
from clipbench.engine.inputs.batches import TrainingLength

BATCH = "batch"


@dataclass(frozen=True)
class Scope:
    """The number of parts of a step; parts of one example are divided by the expected batch size."""

    parts: int = 0  # 0: the batch is not cut
    expected: int = 0  # 0: the average is over the examples of the step
    batch: int = 0  # the examples of a part that is accumulated; 0: parts are clipped separately

    @classmethod
    def of(cls, scope: Value, length: TrainingLength) -> Scope:
        if length.batches > 1:
            return cls(length.batches, batch=length.batch // length.batches)
        if isinstance(scope, Component):
            return cls(int(scope["n"]))  # type: ignore[arg-type]
        return cls(length.batch, length.batch) if scope == "sample" else cls()

    @property
    def clipped_parts(self) -> int:
        """The number of parts that are clipped separately; 0 if all are clipped as one."""
        return 0 if self.batch else self.parts

    def sizes(self, examples: int) -> list[int]:
        """Return the examples of each part: as equal as possible, or batches; empty ones last."""
        parts = self.parts or 1
        if self.batch:
            return [max(0, min(self.batch, examples - part * self.batch)) for part in range(parts)]
        size, more = divmod(examples, parts)
        return [size + 1] * more + [size] * (parts - more)

    def alike(self, examples: int) -> Iterator[tuple[slice, int, int]]:
        """Yield runs of parts of one size above 0, the first example of each run, and that size."""
        start = first = 0
        for size, parts in groupby(filter(None, self.sizes(examples))):
            count = len(list(parts))
            yield slice(start, start + count), first, size
            start, first = start + count, first + count * size

    def shares(self, examples: int) -> list[float]:
        """Return the weight of each part's mean in the average."""
        return [size / (self.expected or examples) for size in self.sizes(examples)]


def scope_of(clip: Component) -> Value:
    """Return the scope of an arm: batch, sample, or a component `shards`."""
    return clip.as_dict().get("scope") or BATCH
