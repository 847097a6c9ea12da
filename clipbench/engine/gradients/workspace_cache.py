"""The workspaces of a process: consecutive chunks of a cohort have the same shape."""

from __future__ import annotations

from clipbench import datasets
from clipbench.engine.gradients.workspace import Workspace, WorkspaceShape
from clipbench.errors import ClipbenchError

# The limit on the weights and gradients of all cached workspaces; the two latest are always kept.
MOST_BYTES = {"cpu": 2**26}
MOST_BYTES_ELSEWHERE = 2**33


class WorkspaceCache:
    """Call it with a shape: it returns a workspace of that shape, which it makes if there is none."""

    def __init__(self) -> None:
        self._cached: dict[WorkspaceShape, Workspace] = {}  # the latest last

    def __call__(self, shape: WorkspaceShape) -> Workspace:
        workspace = self._cached.pop(shape, None) or _made(shape)
        self._cached[shape] = workspace
        self.shrink(shape.device, kept=2)
        return workspace

    def clear(self) -> None:
        """Drop all workspaces."""
        self._cached.clear()

    def shrink(self, device: str, kept: int = 0) -> None:
        """Drop the oldest workspaces while all need more memory than the limit, except the latest ones."""
        most = MOST_BYTES.get(device, MOST_BYTES_ELSEWHERE)
        while len(self._cached) > kept and sum(each.bytes for each in self._cached.values()) > most:
            del self._cached[next(iter(self._cached))]


def _made(shape: WorkspaceShape) -> Workspace:
    loaded = datasets.load(shape.data) if shape.data else None
    if loaded and shape.fingerprint and loaded.fingerprint != shape.fingerprint:
        text = f"{shape.data and shape.data.name}: the data have changed since the experiment was planned."
        raise ClipbenchError(f"{text} Run the same command again; your own data function needs a fixed seed.")
    return Workspace(shape, loaded)
