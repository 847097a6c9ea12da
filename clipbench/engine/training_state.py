"""What training changes, by name: from there another training of the same trials goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from clipbench.engine.early_stop import EarlyStopping
from clipbench.engine.gradients.workspace import Workspace
from clipbench.engine.inputs.batches import BatchSource
from clipbench.engine.inputs.gradient_noise import Noise
from clipbench.engine.lane_group import LaneGroup
from clipbench.engine.lane_status import LaneStatus
from clipbench.engine.state import State


def state_of(
    workspace: Workspace,
    groups: Sequence[LaneGroup],
    source: BatchSource,
    noises: Sequence[Noise],
    status: LaneStatus,
    stopping: EarlyStopping,
    curves: Mapping[str, np.ndarray],
    steps: np.ndarray,
) -> State:
    """Return all that training changes, except what Python objects of the user's keep for themselves."""
    state, lanes = State(), range(workspace.shape.lanes)
    state.add("params.", workspace.params, lanes)
    state.add("buffers.", workspace.states, lanes)
    state.add("averages.", workspace.averages or {}, lanes)
    for number, group in enumerate(groups):
        state.add(f"{number}/", group.memory, group.lanes)
    arrays = {
        **{name: getattr(status, name) for name in ("diverged_step", "cause", "stopped_epoch", "pruned_epoch")},
        **{"waited": stopping.waited, "best": stopping.best},
    }
    state.add("status.", {name: torch.from_numpy(array) for name, array in arrays.items()}, lanes)
    state.add("stopped.", stopping.saved, lanes)
    state.add("epochs.", {name: torch.from_numpy(curve) for name, curve in curves.items()}, lanes, axis=1)
    state.add("", {"steps": torch.from_numpy(steps)}, lanes, axis=2)
    state.add("", {"checked": torch.from_numpy(status.checked)}, (), axis=None)
    for number, noise in enumerate(noises):
        state.add(f"noise{number}.", {"drawn": noise.drawn, "used": noise.used}, (), axis=None)
    state.add("batches.", source.counters, (), axis=None)
    sources = dict(source.generators)
    sources |= {f"noise{number}": noise.generators for number, noise in enumerate(noises)}
    state.generators = {f"{kind}.{seed}": g for kind, each in sources.items() for seed, g in each.items()}
    return state
