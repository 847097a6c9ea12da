"""Chains: records that are computed block by block, so that a long tensor passes through the cache once.

The records of a chain work element by element, or add up, over as many contiguous numbers. A later record joins the
chain of an earlier one that shares a tensor with it, if nothing in between depends on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from clipbench.compiler.call_records import RANK, Record
from clipbench.compiler.library import Library

SHORTEST = 4096  # numbers
LONGEST = 12  # records of a chain, as in kernels.c
FARTHEST = 300  # records between the first and the last of a chain; a search without a limit takes long


class Chains:
    """Orders records, and marks the first one of each chain."""

    def __init__(self, records: Sequence[Record], library: Library) -> None:
        self._records, self._pointwise, self._gradual = records, library.pointwise, library.gradual
        self._lengths = [self._length(record) for record in records]
        self._users: dict[int, list[int]] = defaultdict(list)  # records by the address of a long operand
        for number, record in enumerate(records):
            for span in record.spans if self._lengths[number] else ():
                if span.is_long:
                    self._users[span.start].append(number)

    def ordered(self) -> list[Record]:
        """Return the records in an order in which those of a chain follow one another."""
        order: list[int] = []
        taken: set[int] = set()
        for number in range(len(self._records)):
            if number in taken:
                continue
            chain = self._chain(number, taken) if self._lengths[number] else [number]
            self._records[number].chain = len(chain)
            taken.update(chain)
            order += chain
        return [self._records[number] for number in order]

    def _chain(self, first: int, taken: set[int]) -> list[int]:
        chain, looked_at = [first], first
        while len(chain) < LONGEST:
            starts = {span.start for number in chain for span in self._records[number].spans if span.is_long}
            near = range(looked_at + 1, first + FARTHEST)
            later = sorted({n for start in starts for n in self._users[start] if n in near and n not in taken})
            joining = next((n for n in later if self._may_join(n, chain, taken)), None)
            if joining is None:
                break
            chain.append(joining)
            looked_at = joining
        return chain

    def _may_join(self, number: int, chain: Sequence[int], taken: set[int]) -> bool:
        if self._lengths[number] != self._lengths[chain[0]]:
            return False
        record = self._records[number]
        if not all(_can_alternate(record, self._records[other]) for other in chain):
            return False
        between = (n for n in range(chain[0] + 1, number) if n not in taken and n not in chain)
        return not any(_conflict(record, self._records[other]) for other in between)

    def _length(self, record: Record) -> int:
        """Return over how many contiguous numbers a record works, or 0 if it cannot be in a chain."""
        length = record.size[RANK - 1]
        if length < SHORTEST or any(size != 1 for size in record.size[: RANK - 1]):
            return 0
        is_gradual = record.operator in self._gradual and record.whole[0] == RANK - 1
        if not is_gradual and record.operator not in self._pointwise:
            return 0
        strides = [record.stride[position][RANK - 1] for position in range(record.count)]
        contiguous = all(stride in (0, span.item) for stride, span in zip(strides, record.spans, strict=True))
        return length if contiguous and (strides[1] if is_gradual else strides[0]) else 0


def _can_alternate(one: Record, other: Record) -> bool:
    """Whether two records may compute blocks in turn: what one writes, the other has at the same address or nowhere."""
    return not any(
        a.overlaps(b) and not (a.is_long and b.is_long and a.start == b.start and a.item == b.item)
        for a in one.spans
        for b in other.spans
        if a.is_written or b.is_written
    )


def _conflict(one: Record, other: Record) -> bool:
    return any(a.overlaps(b) for a in one.spans for b in other.spans if a.is_written or b.is_written)
