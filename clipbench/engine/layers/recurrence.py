"""Recurrent layers as loops of products, which are fast under `vmap` and tracing.

PyTorch's kernels for `nn.RNN`, `nn.GRU` and `nn.LSTM` train one model. Here a step is two products, of the inputs and
of the state, that accumulate into one result, which is still in the CPU cache when the next step reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

State = tuple[Tensor, ...]
# A step of a layer: what it reads (a 1 behind the inputs, if there are biases) and its state -> its next state.
Step = Callable[[Tensor, State], State]
# From PyTorch's weights of a layer (into, on, and the biases of both) to its step.
Cell = Callable[..., Step]


def _given(into: Tensor, *biases: Tensor) -> Tensor:
    """Return the matrix for inputs with a 1 appended: the bias is one more row, and needs no sum of its own."""
    return torch.cat([into, *(bias.unsqueeze(1) for bias in biases)], 1).mT


def _rnn(activation: Callable[[Tensor], Tensor]) -> Cell:
    def cell(into: Tensor, on: Tensor, *biases: Tensor) -> Step:
        given, weight = _given(into, *([biases[0] + biases[1]] if biases else [])), on.mT
        return lambda x, state: (activation(x @ given + state[0] @ weight),)

    return cell


def _lstm(into: Tensor, on: Tensor, *biases: Tensor) -> Step:
    given, weight = _given(into, *([biases[0] + biases[1]] if biases else [])), on.mT

    def step(x: Tensor, state: State) -> State:
        hidden, memory = state
        take, keep, new, give = torch.unflatten(x @ given + hidden @ weight, 1, (4, -1)).unbind(1)
        memory = torch.addcmul(torch.sigmoid(keep) * memory, torch.sigmoid(take), torch.tanh(new))
        return torch.sigmoid(give) * torch.tanh(memory), memory

    return step


def _gru(into: Tensor, on: Tensor, *biases: Tensor) -> Step:
    gates, size = 2 * on.shape[1], on.shape[1]
    given_gates = _given(into[:gates], *([(biases[0] + biases[1])[:gates]] if biases else []))
    given_new = _given(into[gates:], *(bias[gates:] for bias in biases[:1]))
    weight_gates, weight_new = (part.mT for part in torch.split(on, [gates, size]))
    late = biases[1][gates:] if biases else None

    def step(x: Tensor, state: State) -> State:
        (hidden,) = state
        reset, update = torch.unflatten(x @ given_gates + hidden @ weight_gates, 1, (2, -1)).unbind(1)
        kept = hidden @ weight_new if late is None else hidden @ weight_new + late
        candidate = torch.tanh(x @ given_new + torch.sigmoid(reset) * kept)
        return (candidate + torch.sigmoid(update) * (hidden - candidate),)

    return step


def _layer(cell: Cell, x: Tensor, state: State, weights: Sequence[Tensor], backwards: bool) -> tuple[Tensor, State]:
    """Run one direction of a layer over a sequence [T, B, features]; return all hidden states and the last state."""
    step = cell(*weights)
    inputs = (functional.pad(x, (0, 1), value=1.0) if len(weights) > 2 else x).unbind(0)
    hidden = []
    for given in reversed(inputs) if backwards else inputs:
        state = step(given, state)
        hidden.append(state[0])
    return torch.stack(hidden[::-1] if backwards else hidden), state


def _layers(
    cell: Cell,
    x: Tensor,
    states: State,
    weights: Sequence[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...] | None:
    """Run all layers; return what `torch.lstm` and the like return. None for options that are not supported."""
    size, directions = 4 if has_biases else 2, 2 if bidirectional else 1
    if len(weights) != size * layers * directions:  # there is a projection
        return None
    sequence, lasts = x.transpose(0, 1) if batch_first else x, []
    for layer in range(layers):
        outputs = []
        for index in range(layer * directions, (layer + 1) * directions):
            state = tuple(initial[index] for initial in states)
            own = weights[index * size : (index + 1) * size]
            output, last = _layer(cell, sequence, state, own, backwards=index % directions == 1)
            outputs.append(output)
            lasts.append(last)
        sequence = torch.cat(outputs, -1) if bidirectional else outputs[0]
        if layer + 1 < layers:
            sequence = torch.dropout(sequence, dropout, train)
    finals = (torch.stack(parts) for parts in zip(*lasts, strict=True))
    return (sequence.transpose(0, 1) if batch_first else sequence, *finals)


def _replacement(cell: Cell) -> Callable[..., tuple[Tensor, ...] | None]:
    def layers(x: Tensor, states: Any, weights: Any, *options: Any) -> tuple[Tensor, ...] | None:
        if isinstance(weights, Tensor):  # packed sequences, of several lengths
            return None
        return _layers(cell, x, (states,) if isinstance(states, Tensor) else tuple(states), weights, *options)

    return layers


def _one_step(cell: Cell) -> Callable[..., Tensor | State]:
    """Return the replacement of `nn.LSTMCell` and the like, for loops that users write."""

    def step(x: Tensor, state: Any, into: Tensor, on: Tensor, *biases: Tensor | None) -> Tensor | State:
        known = [bias for bias in biases if bias is not None]
        given = functional.pad(x, (0, 1), value=1.0) if known else x
        result = cell(into, on, *known)(given, (state,) if isinstance(state, Tensor) else tuple(state))
        return result if len(result) > 1 else result[0]

    return step


REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    torch.rnn_tanh: _replacement(_rnn(torch.tanh)),
    torch.rnn_relu: _replacement(_rnn(torch.relu)),
    torch.gru: _replacement(_gru),
    torch.lstm: _replacement(_lstm),
    torch.rnn_tanh_cell: _one_step(_rnn(torch.tanh)),
    torch.rnn_relu_cell: _one_step(_rnn(torch.relu)),
    torch.gru_cell: _one_step(_gru),
    torch.lstm_cell: _one_step(_lstm),
}
