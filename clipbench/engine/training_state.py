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
from clipbench.engine.state import STEPS, State


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
    state = State()
    state.add("params.", workspace.params)
    state.add("buffers.", workspace.states)
    state.add("averages.", workspace.averages or {})
    for number, group in enumerate(groups):
        state.add(f"{number}/", group.memory)
    arrays = {
        **{name: getattr(status, name) for name in ("diverged_step", "cause", "stopped_epoch", "pruned_epoch")},
        **{"waited": stopping.waited, "best": stopping.best},
    }
    state.add("status.", {name: torch.from_numpy(array) for name, array in arrays.items()})
    state.add("stopped.", stopping.saved)
    state.add("epochs.", {name: torch.from_numpy(curve) for name, curve in curves.items()})
    state.add("", {STEPS: torch.from_numpy(steps), "checked": torch.from_numpy(status.checked)})
    for number, noise in enumerate(noises):
        state.add(f"noise{number}.", {"drawn": noise.drawn, "used": noise.used})
    state.add("batches.", source.counters)
    sources = dict(source.generators)
    sources |= {f"noise{number}": noise.generators for number, noise in enumerate(noises)}
    state.generators = {f"{kind}.{seed}": g for kind, each in sources.items() for seed, g in each.items()}
    return state
