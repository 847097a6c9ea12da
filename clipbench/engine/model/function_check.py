"""Whether a model computes the same as a pure function of its tensors, and as the graph of that function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import vmap

from clipbench.compiler.trace import trace
from clipbench.core import generators
from clipbench.engine.inputs.random_draws import DrawnNumbers, Found
from clipbench.engine.model.architecture import tensors_in, trained_parameters
from clipbench.engine.model.loss_function import LossFunction, layers_given
from clipbench.engine.model.network import Batch, Network, backward


class ModelCall:
    """A model that is called as it is, once in training and once in eval mode, and the function of its tensors.

    Its results are the loss, the output in eval mode, the buffers that it changes, and the gradients.
    """

    def __init__(self, network: Network, changing: Sequence[str], model: nn.Module, batch: Batch, seed: int) -> None:
        self._network, self._changing = network.of(model), changing
        self.rounding = network.rounding
        trained = trained_parameters(model)
        self._params = {name: parameter.detach().clone() for name, parameter in trained.items()}
        others = ((name, tensor) for name, tensor in tensors_in(model).items() if name not in trained)
        self._states = {name: tensor.detach().clone() for name, tensor in others}
        with Found() as in_training:
            generators.seed_all(seed)
            loss = self._network.plain_loss(*(part.clone() for part in batch))
        backward(loss)
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in trained.values()]
        model.zero_grad()
        tensors = tensors_in(model)
        after = [tensors[name].detach().clone() for name in changing]
        with torch.no_grad(), Found() as in_evaluation:
            generators.seed_all(seed)
            output = self._network.plain_output(batch[0].clone())
        self.results = [loss.detach(), output, *after, *grads]
        self._draws = in_training.draws, in_evaluation.draws
        self.refusal = in_training.refusal or in_evaluation.refusal  # why it is no such function
        self.tensors = [*self._params.values(), *self._states.values(), *batch]
        for draws in self._draws:
            generators.seed_all(seed)
            drawn = DrawnNumbers(draws, 1, 1, 1, torch.device("cpu"))
            generators.seed_all(seed)
            drawn.draw(0, 0)
            self.tensors += [numbers[0, 0, 0] for numbers in drawn.numbers]

    def function(self, *tensors: Tensor) -> list[Tensor]:
        """Return the same results for other tensors of the same kind."""
        rest = iter(tensors)
        params, states = ({name: next(rest) for name in names} for names in (self._params, self._states))
        batch = next(rest), next(rest)
        in_training, in_evaluation = ([next(rest) for _ in draws] for draws in self._draws)
        loss_function = LossFunction(self._network, self._changing, self._draws[0])
        loss, grads, after = loss_function(params, states, batch, in_training)
        with torch.no_grad(), layers_given(self._draws[1], in_evaluation):
            output = self._network.predict(params, {**states, **after}, batch[0])
        return [loss, output, *after.values(), *(grads[name] for name in params)]

    def kinds(self, results: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield what is compared as one: the loss, the output, each buffer that changes, and all gradients."""
        count = 2 + len(self._changing)
        yield from (result.detach() for result in results[:count])
        yield torch.cat([gradient.detach().flatten() for gradient in results[count:]])


def as_graph(calls: Sequence[ModelCall]) -> list[Sequence[Tensor]]:
    """Return the results of all calls by the graph of the first; raise what a trace does not support."""
    graph = trace(calls[0].function, calls[0].tensors).module()
    with torch.no_grad():
        return [graph(*call.tensors) for call in calls]


def mapped(calls: Sequence[ModelCall]) -> list[Sequence[Tensor]]:
    """Return the results of all calls under `vmap`."""
    stacked = (torch.stack(each) for each in zip(*(call.tensors for call in calls), strict=True))
    results = vmap(calls[0].function)(*stacked)
    return [[result[lane] for result in results] for lane in range(len(calls))]


def agree(call: ModelCall, results: Sequence[Tensor]) -> bool:
    """Whether results are those of a call up to rounding, relative to the largest of their kind."""
    for ours, theirs in zip(call.kinds(call.results), call.kinds(results), strict=True):
        if not ours.is_floating_point():
            if not torch.equal(ours, theirs):
                return False
            continue
        if not (ours.isfinite().all() and theirs.isfinite().all()):
            continue  # which of the sums overflow first is a matter of rounding
        allowed = max(10 * torch.finfo(ours.dtype).eps ** 0.5, 16 * call.rounding)
        if float((ours - theirs).abs().max()) > allowed * float(ours.abs().max()):
            return False
    return True
