"""The cache of this process's workspaces, and the decision whether moving to a narrower one saves time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from clipbench import datasets
from clipbench.engine.gradients.workspace import Workspace, WorkspaceShape
from clipbench.errors import ClipbenchError

# A chunk of one lane would use other kernels than a chunk of many, and so differ in the last bits.
FEWEST_LANES = 2
# The limit on the weights and gradients of all cached workspaces; the two latest are always kept.
MOST_BYTES = {"cpu": 2**26}
MOST_BYTES_ELSEWHERE = 2**33
# The share of a lane's time that is saved without it: a step has a cost that does not depend on the number of lanes.
WORTH = 0.75


class WorkspaceCache:
    """Consecutive chunks of a cohort have the same shape, and lose lanes at about the same steps."""

    def __init__(self) -> None:
        self._cached: dict[WorkspaceShape, Workspace] = {}  # the latest last
        self._missed: dict[WorkspaceShape, float] = defaultdict(float)  # seconds that one not cached would have saved

    def workspace(self, shape: WorkspaceShape) -> Workspace:
        return self._add(self._cached.get(shape) or _made(shape))

    def narrower(
        self, wide: Workspace, alive: int, seconds: float, missed: dict[WorkspaceShape, float]
    ) -> Workspace | None:
        """Return a workspace for the lanes that are alive, if it saves some of the `seconds` left in the wide one.

        A cached one costs nothing. A new one costs about as much as the wide one did, often more than one chunk saves.
        But later chunks save as much: it is made as soon as all chunks together have missed that many seconds.
        """
        saved = {
            replace(wide.shape, lanes=lanes): WORTH * seconds * (1 - lanes / wide.lanes)
            for lanes in sizes(alive, wide.lanes)
        }
        gained = {
            shape: each if shape in self._cached else each + self._missed[shape] - wide.seconds
            for shape, each in saved.items()
        }
        best = max(gained, key=gained.__getitem__, default=None)
        if best is None or gained[best] <= 0:
            missed |= {shape: max(each, missed.get(shape, 0.0)) for shape, each in saved.items()}
            return None
        return self._cached.get(best) or self._narrowed(wide, best)

    def add_missed(self, missed: Mapping[WorkspaceShape, float]) -> None:
        """Add the seconds that a finished chunk could have saved."""
        for shape, seconds in missed.items():
            self._missed[shape] += seconds

    def _narrowed(self, wide: Workspace, shape: WorkspaceShape) -> Workspace:
        narrow = wide.narrower(shape.lanes)
        self._missed.pop(shape, None)
        if self._bytes + narrow.bytes <= _most(shape):  # it must not displace the wide one
            self._cached = {shape: narrow, **self._cached}
        return narrow

    def _add(self, workspace: Workspace) -> Workspace:
        self._cached.pop(workspace.shape, None)
        self._cached[workspace.shape] = workspace
        while len(self._cached) > 2 and self._bytes > _most(workspace.shape):
            del self._cached[next(iter(self._cached))]
        return workspace

    @property
    def _bytes(self) -> int:
        return sum(workspace.bytes for workspace in self._cached.values())


def _most(shape: WorkspaceShape) -> int:
    return MOST_BYTES.get(shape.device, MOST_BYTES_ELSEWHERE)


def sizes(alive: int, lanes: int) -> list[int]:
    """Return numbers of lanes with room for those alive, below `lanes`: few different ones, so that they recur."""
    steps = (count << power for power in range(lanes.bit_length()) for count in (2, 3))
    return sorted(size for size in steps if max(alive, FEWEST_LANES) <= size < lanes)


def _made(shape: WorkspaceShape) -> Workspace:
    loaded = datasets.load(shape.data) if shape.data else None
    if loaded and shape.fingerprint and loaded.fingerprint != shape.fingerprint:
        text = f"{shape.data and shape.data.name}: the data have changed since the experiment was planned."
        raise ClipbenchError(f"{text} Run the same command again; your own data function needs a fixed seed.")
    return Workspace(shape, loaded)
