"""The engine on gradients of the test's choice: any rule, on many lanes, step by step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from clipbench.core.trial import Component, Training, Trial
from clipbench.engine.chunk_training import ChunkTraining
from clipbench.engine.gradients.workspace import Workspace, WorkspaceShape
from clipbench.engine.step import COLUMNS
from tests.given_gradient import SHAPES

SIZES = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
ELEMENTS = sum(SIZES.values())
# [start, stop) of each place, by where a rule looks.
PLACES = {
    "model": [(0, 34)],
    "tensor": [(0, 12), (12, 28), (28, 33), (33, 34)],
    "unit": [(0, 4), (4, 8), (8, 12), (12, 20), (20, 28), (28, 33), (33, 34)],
}
SGD = Component.of("sgd", lr=0.5)
# The elements of each column of the matrix, of each channel of the filters, and of the others as a whole.
OF_COLUMNS = [
    *np.arange(0, 12).reshape(3, 4).T,
    *np.arange(12, 28).reshape(2, 2, 4).transpose(1, 0, 2).reshape(2, 8),
    np.arange(28, 33),
    np.arange(33, 34),
]


class Engine:
    """Lanes of arms, whose weights are put back to `weights` before every step, unless it is None."""

    def __init__(
        self,
        arms: Sequence[Component],
        dtype: str = "float32",
        steps: int = 1,
        optimizer: Component = SGD,
        weights: np.ndarray | None = None,
    ) -> None:
        train = Training(epochs=None, steps=steps, loss=Component.of("output"), dtype=dtype)
        model = Component.of("tests.given_gradient:given")
        self.trials = [Trial(None, model, optimizer, train, arm, seed=0) for arm in arms]
        shape = WorkspaceShape.of(self.trials, "cpu")
        turn = next(turn for turn in itertools.count() if (shape, turn) not in _USERS)
        _USERS[shape, turn] = self
        workspace = _workspace(shape, turn)
        self.training = ChunkTraining(self.trials, workspace)
        self.workspace = self.training.workspace
        self.weights = weights

    def step(self, gradients: np.ndarray) -> np.ndarray:
        """What the rules make of gradients [lanes, elements]; where a step is refused, zeros."""
        if self.weights is not None:
            self._fill(self.workspace.params, np.tile(self.weights, (len(gradients), 1)))
        self._fill({name: self.workspace.states[f"{name}_gradient"] for name in SHAPES}, gradients)
        self.training._block(0, 1)
        clipped = [group.clipped() for group in self.training.groups]
        return self._flat({name: torch.cat([each[name] for each in clipped]) for name in SHAPES})

    def weights_now(self) -> np.ndarray:
        return self._flat(self.workspace.params)

    def told(self) -> dict[str, np.ndarray]:
        """The columns of all steps: [steps, lanes]."""
        steps = self.training._result().steps
        return {name: steps[:, row] for row, name in enumerate(COLUMNS)}

    def _fill(self, tensors: dict[str, Tensor], rows: np.ndarray) -> None:
        for name, part in zip(SHAPES, np.split(rows, np.cumsum(list(SIZES.values()))[:-1], axis=1), strict=True):
            tensors[name].copy_(torch.as_tensor(np.ascontiguousarray(part)).reshape(tensors[name].shape))

    def _flat(self, tensors: dict[str, Tensor]) -> np.ndarray:
        return np.concatenate([tensors[name].reshape(len(self.trials), -1).numpy() for name in SHAPES], axis=1)


# A workspace holds the state of one training at a time; engines that live side by side get one each.
_USERS: WeakValueDictionary[tuple[WorkspaceShape, int], Engine] = WeakValueDictionary()


@cache
def _workspace(shape: WorkspaceShape, turn: int) -> Workspace:
    return Workspace(shape, None, keeps_clipped=True)
