"""Examination of a model before it is trained: can many of it be one tensor program, and if not, why?

The model is built and called as a plain loop does it, with batches of the real size, and everything that a call could
change is compared before and after: weights, buffers, attributes, random generators, the inputs. All modules are built
for the examination and thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from clipbench.core import generators
from clipbench.core.time_limit import TIME_LIMIT
from clipbench.core.trial import Component, Training
from clipbench.datasets import Dataset, Stream
from clipbench.engine.inputs.batches import TrainingLength
from clipbench.engine.model.architecture import (
    Architecture,
    refuse_other_parameters,
    tensors_in,
    trained_parameters,
)
from clipbench.engine.model.function_check import ModelCall, agree, as_graph, mapped
from clipbench.engine.model.network import DTYPES, Batch, Network, backward, build_model, is_own, tensors_of
from clipbench.engine.model.python_state import Snapshot, changed, differing, leaves, shared_by, snapshot
from clipbench.errors import Unsupported, first_sentence

STEPS = 3
FEW = 4  # examples
CALLS = 10  # of the model, whose time each part of the examination may take


@dataclass(frozen=True)
class Examination:
    """What is known of a model before it is trained."""

    loop_reason: str = ""  # why its lanes are trained one after another; empty if they are one tensor program
    changing: tuple[str, ...] = ()  # the buffers that training changes
    draws: bool = False  # whether the model or its loss draws random numbers in training, from torch's generator
    draws_in_evaluation: bool = False
    by_example: bool = False  # whether it has an output for each example, which depends on no other one
    idle: frozenset[str] = frozenset()  # parameters that never have a gradient: no optimizer changes them
    gradients_vary: bool = False  # whether a parameter may have a gradient at some steps and none at others
    evaluation_changes: bool = False  # whether evaluation changes the model
    sparse: bool = False  # whether some gradients are sparse


def examine(component: Component, train: Training, dataset: Dataset | None) -> Examination:
    """Examine a model on the CPU; raises Unsupported, or what the model function raises."""
    unused: dict[str, Any] = {
        **{"steps": None, "schedule": None, "early_stop": None, "target": None, "save_weights": False},
        **{"accumulate": 1, "ema": None},
    }
    return _examined(component, replace(train, epochs=1, **unused), dataset)


@lru_cache(maxsize=8)
def _examined(component: Component, train: Training, dataset: Dataset | None) -> Examination:
    with generators.preserved(), TIME_LIMIT.within(train.timeout_per_step):
        TIME_LIMIT.renew(CALLS)
        return _Examiner(component, train, dataset).result()


class _Examiner:
    def __init__(self, component: Component, train: Training, dataset: Dataset | None) -> None:
        self._component, self._train, self._dataset = component, train, dataset
        self._model, self._again, self._other = (self._built(seed) for seed in (0, 0, 1))
        self._network = Network(self._model, train, has_data=dataset is not None)
        self._own = is_own(component)
        few = not (self._own or self._network.own_measures)  # tests hold that built-in functions work for all sizes
        self._batches = list(_batches(dataset, train, self._network.dtype, FEW if few else None))
        self._seed_attributes: list[str] = []  # those that differ between seeds
        self._draws = self._draws_in_evaluation = self._draws_elsewhere = False  # random numbers
        self._changes_inputs = False
        self._without_gradient: list[frozenset[str]] = []  # the parameters without a gradient, for each batch
        self._sparse: set[str] = set()  # the parameters with a sparse gradient

    def result(self) -> Examination:
        self._compare_builds()
        changes = self._train_on_batches()
        self._refuse_views_of_weights()
        evaluation_changes = self._evaluate()
        self._changing = tuple(path for path in changes if path in self._states_of(self._model))
        others = [path for path in changes if path not in self._changing]
        reason = next(filter(None, self._reasons(others + evaluation_changes)), "")
        varying = bool(reason) and self._own
        static = frozenset() if varying or self._train.noise else frozenset.intersection(*self._without_gradient)
        return Examination(
            reason,
            self._changing,
            self._draws,
            self._draws_in_evaluation,
            by_example=not reason and self._is_by_example(),
            idle=static,
            gradients_vary=varying,
            evaluation_changes=bool(evaluation_changes),
            sparse=bool(self._sparse),
        )

    def _reasons(self, changes: Sequence[str]) -> Iterator[str]:
        """Yield the reasons against one tensor program, those that are cheap to find first."""
        yield f"training changes its {self._kind(changes[0])}" if changes else ""
        yield "it draws random numbers by numpy or `random`" if self._draws_elsewhere else ""
        yield "it changes its input in place" if self._changes_inputs else ""
        yield "hooks change its gradients" if _has_gradient_hooks(self._model) else ""
        yield f"the gradient of `{min(self._sparse)}` is sparse" if self._sparse else ""
        yield "some parameters have no gradient for some batches" if len(set(self._without_gradient)) > 1 else ""
        seeds = self._seed_attributes
        yield f"its {self._kind(seeds[0])} depends on the seed" if seeds else ""
        yield self._reason_of_function()

    def _built(self, seed: int) -> nn.Module:
        module = build_model(self._component, self._dataset, seed)
        for name, tensor in tensors_in(module).items():
            if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
                text = f"`{name}` has no shape before the first call: its layer is one such as LazyLinear."
                raise Unsupported(text, "Give the layer its sizes, or call the model once before you return it.")
        return module.to(DTYPES[self._train.dtype])

    def _compare_builds(self) -> None:
        """Refuse models that are not made again by the same seed, or of another architecture by another one."""
        first, other = Architecture.of(self._model), Architecture.of(self._other)
        again = [path for path in differing(first.state, snapshot(self._again)) if not _is_text(first.state.get(path))]
        if again:
            text = f"two models of the same seed differ in `{again[0]}`."
            remedy = "Draw it from the global generator of torch, numpy or `random`, which the trial seeds."
            raise Unsupported(text, remedy)
        first.refuse_other(other, attributes=False)
        self._seed_attributes = first.attributes_that_differ(other)

    def _train_on_batches(self) -> list[str]:
        """Take the gradient for each batch; return what has changed in the model."""
        before, trained = snapshot(self._model), trained_parameters(self._model)
        shared: list[dict[str, Snapshot]] = []
        for number, batch in enumerate(self._batches, 1):
            TIME_LIMIT.renew(CALLS)
            x, y = (part.clone() for part in batch)
            generators.seed_all(generators.step_number(0, number))
            unused = generators.States.now()
            loss = self._network.plain_loss(x, y)
            backward(loss)
            self._draws |= self._note_draws(unused)
            self._changes_inputs |= not (torch.equal(x, batch[0]) and torch.equal(y, batch[1]))
            gradients = {name: p.grad for name, p in self._model.named_parameters() if p.requires_grad}
            self._without_gradient.append(frozenset(name for name, g in gradients.items() if g is None))
            self._sparse |= {name for name, g in gradients.items() if g is not None and g.layout != torch.strided}
            self._model.zero_grad()
            shared.append(self._shared_state())
        refuse_shared_state(*shared[:2])  # a cache is filled at the first batch of a size
        refuse_other_parameters(trained, self._model)
        return changed(before, snapshot(self._model))

    def _evaluate(self) -> list[str]:
        """Compute the output in eval mode; return what has changed in the model."""
        TIME_LIMIT.renew(CALLS)
        before, unused = snapshot(self._other), generators.States.now()
        with torch.no_grad():
            self._network.of(self._other).plain_output(self._batches[0][0].clone())
        self._draws_in_evaluation = self._note_draws(unused)
        return changed(before, snapshot(self._other))

    @torch.no_grad()
    def _is_by_example(self) -> bool:
        """Return whether the output for each example depends on no other one, as normalization by the batch does."""
        if self._draws_in_evaluation or not self._network.has_data:
            return False
        network, x = self._network.of(self._other), self._batches[0][0]
        draw, half = torch.Generator().manual_seed(0), -(-len(x) // 2)
        params = {  # weights that are zero at the start could hide the dependence
            name: p + 0.1 * torch.randn(p.shape, generator=draw, dtype=p.dtype)
            for name, p in self._other.named_parameters()
        }
        together, apart = (network.predict(params, dict(self._other.named_buffers()), some) for some in (x, x[:half]))
        if not together.ndim or len(together) != len(x):
            return False
        scale = float(together.abs().max())
        allowed = max(1e-4, 4 * network.rounding) * scale
        return torch.allclose(apart[:half], together[:half], rtol=1e-3, atol=allowed, equal_nan=True)

    def _shared_state(self) -> dict[str, Snapshot]:
        """Return the state that no model has for itself: of classes, of files, of the loss and the metrics."""
        measures = {measure.key: measure.function for measure in self._network.own_measures}
        users = [*{type(module) for module in self._model.modules()}, *measures.values()]
        shared = {key: snapshot(function) for key, function in measures.items()}
        return shared | {"model": shared_by(users)}

    def _refuse_views_of_weights(self) -> None:
        """Refuse attributes that show the weights of the module: lanes have weights elsewhere."""
        weights = {p.untyped_storage().data_ptr() for p in self._model.parameters() if p.numel()}
        for path, value in leaves(self._model):
            if not isinstance(value, Tensor) or value.layout != torch.strided or not self._is_attribute(path):
                continue
            if value.untyped_storage().data_ptr() in weights:
                raise Unsupported(f"its attribute `{path}` is a view of its weights.", "Compute it in `forward`.")

    def _note_draws(self, before: generators.States) -> bool:
        """Return whether torch's generator was used since then; note whether another one was."""
        now = generators.States.now()
        self._draws_elsewhere |= not now._replace(torch=before.torch).are_those_of(before)
        return not torch.equal(now.torch, before.torch)

    def _reason_of_function(self) -> str:
        """Compare two models of two seeds on two batches, called as they are, with the graph of a pure function."""
        models, batches = (self._model, self._other), self._batches[:2]
        calls = [
            ModelCall(self._network, self._changing, model, batch, seed)
            for seed, (model, batch) in enumerate(zip(models, batches, strict=True))
        ]
        if calls[0].refusal:
            return str(calls[0].refusal)
        try:
            results = as_graph(calls)
        except Exception as refusal:  # noqa: BLE001 - a model may do anything that a trace does not support
            if self._draws or self._draws_in_evaluation or self._changing:
                what = (
                    f"training changes its {self._kind(self._changing[0])}"
                    if self._changing
                    else "it draws random numbers"
                )
                return f"{what}, and as a function of its tensors it fails: {first_sentence(refusal).rstrip('.')}"
            try:
                results = mapped(calls)
            except Exception as error:  # noqa: BLE001
                return f"vmap does not support it: {first_sentence(error).rstrip('.')}"
        return "" if all(map(agree, calls, results)) else "as a function of its tensors it gives other results"

    @staticmethod
    def _states_of(module: nn.Module) -> dict[str, Tensor]:
        """Return what is no trained parameter: frozen ones and buffers."""
        trained = trained_parameters(module)
        return {name: tensor for name, tensor in tensors_in(module).items() if name not in trained}

    def _is_attribute(self, path: str) -> bool:
        return path not in tensors_in(self._model)

    def _kind(self, path: str) -> str:
        kind = "parameter" if path in dict(self._model.named_parameters(remove_duplicate=False)) else "buffer"
        return f"attribute `{path.partition('[')[0]}`" if self._is_attribute(path) else f"{kind} `{path}`"


def refuse_shared_state(before: Mapping[str, Snapshot], after: Mapping[str, Snapshot]) -> None:
    """Refuse functions whose shared state differs between two steps, by their keys in the YAML."""
    for key, state in before.items():
        if paths := changed(state, after[key]):
            text = f"`{paths[0]}` changes at every step, but all trials that a process trains share it."
            owner = "optimizer" if key == "optimizer" else "module that is trained"
            raise Unsupported(text, f"Keep it in an attribute of the {owner}: `self.steps += 1`.", key)


def _has_gradient_hooks(module: nn.Module) -> bool:
    hooks = ("_backward_hooks", "_backward_pre_hooks", "_post_accumulate_grad_hooks")
    return any(getattr(part, name, None) for part in (*module.modules(), *module.parameters()) for name in hooks)


def _is_text(value: object) -> bool:
    return isinstance(value, tuple) and value[0] is str


def _batches(dataset: Dataset | None, train: Training, dtype: torch.dtype, most: int | None) -> Iterator[Batch]:
    """Yield batches of the sizes that training has, the last one of an epoch at the end; of at most `most` examples."""
    length = TrainingLength.of(train, dataset)
    draw = torch.Generator().manual_seed(0)
    for number in range(STEPS):
        whole = length.size(length.epoch_steps - 1 if number == STEPS - 1 else 0)
        size = min(whole, most or whole)
        if dataset is None:
            yield torch.zeros(1, dtype=dtype), torch.zeros(1, dtype=dtype)
        elif isinstance(dataset, Stream) and not dataset.augment:
            x, y = (part.numpy()[:size] for part in dataset.batch(draw, whole))
            yield tensors_of((x, y), dtype)
        else:
            yield dataset.first_batch(dtype, size, start=number * size)
