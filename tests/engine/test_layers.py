"""Layers as many models train them: PyTorch's numbers, values and gradients, and few compiled records."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from clipbench.compiler.native_program import TensorAxes
from clipbench.engine.layers.replace import layers_for_many
from clipbench.engine.lowering import Lowered

KINDS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def tensors(output: object) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else [t for part in output for t in tensors(part)]  # type: ignore[attr-defined]


def values_and_gradients(module: nn.Module, *inputs: Tensor) -> list[Tensor]:
    outputs = tensors(module(*inputs))
    wanted = [*(x for x in inputs if x.requires_grad), *module.parameters()]
    total = sum((number * output.sin()).sum() for number, output in enumerate(outputs, 1))
    return [*outputs, *torch.autograd.grad(total, wanted)]


def assert_same(module: nn.Module, *inputs: Tensor) -> None:
    expected = values_and_gradients(module, *inputs)
    with layers_for_many():
        found = values_and_gradients(module, *inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def drawn(*shape: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias, batch_first, bidirectional", list(itertools.product((True, False), repeat=3)))
@pytest.mark.parametrize("layers", (1, 2))
def test_recurrent_layers_are_pytorchs(
    kind: str, bias: bool, batch_first: bool, bidirectional: bool, layers: int
) -> None:
    module = KINDS[kind](3, 4, layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional)
    assert_same(module.double(), drawn(5, 6, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_layers_start_where_they_are_told_and_take_one_sequence(kind: str) -> None:
    class Started(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = KINDS[kind](3, 4)

        def forward(self, x: Tensor, start: Tensor) -> object:
            return self.cells(x, (start, start * 2) if kind == "lstm" else start)

    assert_same(Started().double(), drawn(5, 6, 3), drawn(1, 6, 4))
    assert_same(KINDS[kind](3, 4).double(), drawn(5, 3))


def test_relu_and_a_projection_are_pytorchs_too() -> None:
    assert_same(nn.RNN(3, 4, nonlinearity="relu").double(), drawn(5, 6, 3))
    assert_same(nn.LSTM(3, 4, proj_size=2).double(), drawn(5, 6, 3))


@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("cell", (nn.RNNCell, nn.GRUCell, nn.LSTMCell))
def test_cells_are_pytorchs(cell: type[nn.RNNCellBase], bias: bool) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell(3, 4, bias=bias)

        def forward(self, x: Tensor) -> object:
            state = None
            for step in x:
                state = self.cell(step, state)
            return state

    assert_same(Loop().double(), drawn(5, 6, 3))


class Attention(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = options

    def forward(self, *tensors: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*tensors, **self.options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    (
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.arange(30).reshape(5, 6) % 4 < 3},
        {"attn_mask": torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(5, 6)},
    ),
    ids=("plain", "causal", "scale", "mask", "bias"),
)
def test_attention_is_pytorchs(options: dict[str, object]) -> None:
    assert_same(Attention(**options), drawn(2, 3, 5, 4), drawn(2, 3, 6, 4), drawn(2, 3, 6, 4))


@pytest.mark.parametrize("affine", (True, False))
@pytest.mark.parametrize("shape", ((3, 6, 4, 5), (3, 6, 7), (3, 6)))
def test_group_normalization_is_pytorchs(affine: bool, shape: tuple[int, ...]) -> None:
    module = nn.GroupNorm(2, 6, affine=affine).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    assert_same(module, drawn(*shape))


@pytest.mark.parametrize("affine", (True, False))
@pytest.mark.parametrize("over", (6, (4, 6)))
def test_layer_normalization_is_pytorchs(affine: bool, over: int | tuple[int, ...]) -> None:
    module = nn.LayerNorm(over, elementwise_affine=affine).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    assert_same(module, drawn(3, 5, 4, 6))


class Reads(nn.Module):
    """A layer over sequences of twelve steps and a class from its output, as people write it."""

    def __init__(self, layer: nn.Module, last: bool = True) -> None:
        super().__init__()
        self.layer, self.head, self.last = layer, nn.Linear(8, 5), last

    def forward(self, x: Tensor) -> Tensor:
        states = self.layer(x)
        states = states[0] if isinstance(states, tuple) else states
        return self.head(states[:, -1] if self.last else states.mean(1))


class ByHand(nn.Module):
    """A recurrence of linear layers, as people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.on = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden, states = torch.zeros(len(x), 8), []
        for step in range(x.shape[1]):
            hidden = torch.tanh(self.into(x[:, step]) + self.on(hidden))
            states.append(hidden)
        return torch.stack(states, 1)


LAYERS = {
    "rnn": lambda: nn.RNN(8, 8, batch_first=True),
    "gru": lambda: nn.GRU(8, 8, batch_first=True),
    "lstm": lambda: nn.LSTM(8, 4, 2, batch_first=True, bidirectional=True),
    "by hand": ByHand,
    "transformer": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
}


@pytest.mark.native
@pytest.mark.parametrize("layer", LAYERS)
def test_a_model_of_ones_own_with_these_layers_is_compiled(layer: str) -> None:
    torch.manual_seed(0)
    model = Reads(LAYERS[layer]())
    weights = [torch.stack([w.detach(), w.detach() * 0.9, w.detach() * 1.1]) for w in model.parameters()]
    y = torch.randint(5, (7,))
    program, step, outputs = compiled(model, torch.randn(7, 12, 8), weights, lambda output: F.cross_entropy(output, y))
    assert program.path == "native", program.refusals
    program(0, range(3))
    for lane in range(3):
        for mine, theirs in zip(outputs, step(*(w[lane] for w in weights)), strict=True):
            torch.testing.assert_close(mine[lane], theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.native
def test_gradients_of_a_recurrence_accumulate_in_place() -> None:
    """What is left for each step: two products and a tanh forward, its derivative and three products backward."""
    torch.manual_seed(0)
    model, steps = Reads(nn.RNN(8, 8, batch_first=True), last=False), 12
    weights = [w.detach()[None].clone() for w in model.parameters()]
    program, *_ = compiled(model, torch.randn(7, steps, 8), weights, lambda output: output.square().mean())
    assert program.native is not None, program.refusals
    assert program.native.piece.count <= 9 * steps + 40


def compiled(
    model: nn.Module, x: Tensor, weights: list[Tensor], loss: Callable[[Tensor], Tensor]
) -> tuple[Lowered, Callable[..., Sequence[Tensor]], list[Tensor]]:
    """The program of loss and gradients, the function itself, and the outputs."""
    names = [name for name, _ in model.named_parameters()]

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        with layers_for_many():
            grads, value = grad_and_value(lambda params: loss(functional_call(model, params, (x,))))(
                dict(zip(names, tensors, strict=True))
            )
        return value, *grads.values()

    lanes = len(weights[0])
    outputs = [torch.zeros(lanes), *(torch.zeros_like(w) for w in weights)]
    bound = [[(tensor, TensorAxes()) for tensor in some] for some in (weights, outputs)]
    return Lowered(step, *bound, range(lanes)), step, outputs
