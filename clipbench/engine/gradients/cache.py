"""The workspaces of this process, each traced once; and where lanes go on when others have left, if that pays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from clipbench import datasets
from clipbench.engine.gradients.workspace import Shape, Workspace
from clipbench.errors import ClipbenchError

# A chunk of one lane would use other kernels than a chunk of many, and so differ in the last bits.
FEWEST_LANES = 2
# Weights and gradients of all workspaces that are kept come to about so many bytes; the two latest are kept anyway.
MOST_BYTES = {"cpu": 2**26}
MOST_BYTES_ELSEWHERE = 2**33
# Of the time that lanes take, the share that goes when they do: a step costs something however few there are.
WORTH = 0.75


class Shelf:
    """Chunks of a cohort come one after another in the same shape, and lose lanes as those before them did."""

    def __init__(self) -> None:
        self._kept: dict[Shape, Workspace] = {}  # the latest last
        self._missed: dict[Shape, float] = defaultdict(float)  # what a workspace that is not there would have saved

    def workspace(self, shape: Shape) -> Workspace:
        found = self._kept.get(shape)
        return self._keep(found or _made(shape))

    def narrower(self, wide: Workspace, alive: int, seconds: float, missed: dict[Shape, float]) -> Workspace | None:
        """A workspace for the lanes that are alive, if that pays; to train on in the wide one takes so many seconds.

        One that is there costs nothing. A new one costs about what the wide one did, which often is more than a chunk
        saves; but the chunks to come will save as much, so it is made as soon as all together have `missed` that.
        """
        saved = {
            replace(wide.shape, lanes=lanes): WORTH * seconds * (1 - lanes / wide.lanes)
            for lanes in sizes(alive, wide.lanes)
        }
        gained = {
            shape: each if shape in self._kept else each + self._missed[shape] - wide.seconds
            for shape, each in saved.items()
        }
        best = max(gained, key=gained.__getitem__, default=None)
        if best is None or gained[best] <= 0:
            missed |= {shape: max(each, missed.get(shape, 0.0)) for shape, each in saved.items()}
            return None
        return self._kept.get(best) or self._narrowed(wide, best)

    def regret(self, missed: Mapping[Shape, float]) -> None:
        """A chunk is over."""
        for shape, seconds in missed.items():
            self._missed[shape] += seconds

    def _narrowed(self, wide: Workspace, shape: Shape) -> Workspace:
        narrow = wide.narrower(shape.lanes)
        self._missed.pop(shape, None)
        if self._bytes + narrow.bytes <= _most(shape):  # it must not drive out the wide one
            self._kept = {shape: narrow, **self._kept}
        return narrow

    def _keep(self, workspace: Workspace) -> Workspace:
        self._kept.pop(workspace.shape, None)
        self._kept[workspace.shape] = workspace
        while len(self._kept) > 2 and self._bytes > _most(workspace.shape):
            del self._kept[next(iter(self._kept))]
        return workspace

    @property
    def _bytes(self) -> int:
        return sum(workspace.bytes for workspace in self._kept.values())


def _most(shape: Shape) -> int:
    return MOST_BYTES.get(shape.device, MOST_BYTES_ELSEWHERE)


def sizes(alive: int, lanes: int) -> list[int]:
    """Numbers of lanes that so many fit in, fewer than there are: few different ones, so that they come again."""
    steps = (count << power for power in range(lanes.bit_length()) for count in (2, 3))
    return sorted(size for size in steps if max(alive, FEWEST_LANES) <= size < lanes)


def _made(shape: Shape) -> Workspace:
    loaded = datasets.load(shape.data) if shape.data else None
    if loaded and shape.fingerprint and loaded.fingerprint != shape.fingerprint:
        text = f"{shape.data and shape.data.name}: the data are not those that were planned."
        raise ClipbenchError(f"{text} Type the same command again; a function of your own needs a fixed seed.")
    return Workspace(shape, loaded)
