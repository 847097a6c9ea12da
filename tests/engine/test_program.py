"""The program of a step: it computes what the function does, whatever way it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from clipbench.engine.compiler.program import Program, build
from clipbench.engine.layers.replace import layers_for_many

BATCH = 12


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Mlp(nn.Sequential):
    example = (BATCH, 9)

    def __init__(self) -> None:
        super().__init__(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 5))


class Cnn(nn.Sequential):
    example = (BATCH, 2, 8, 8)

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 6, 3, padding=1), nn.GELU(), nn.AvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(24, 5)),
        )


class Recurrent(nn.Module):
    example = (BATCH, 4, 3)

    def __init__(self) -> None:
        super().__init__()
        self.into, self.on, self.out = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        inputs = self.into(x)
        hidden = torch.zeros_like(inputs[:, 0])
        for step in range(x.shape[1]):
            hidden = torch.tanh(inputs[:, step] + self.on(hidden))
        return self.out(hidden)


class Attention(nn.Module):
    example = (BATCH, 6, 8)

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        scores = (query @ key.mT / 2).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(x.shape)
        return self.out((x + mixed).mean(1))


MODELS = (Mlp, Cnn, Recurrent, Attention)


def classification(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target)


def stacked(
    model: type[nn.Module], lanes: int, dtype: torch.dtype = torch.float32
) -> tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]:
    """One step of `lanes` models as a function of weights, inputs and targets, and their weights."""
    modules = []
    for seed in range(lanes):
        torch.manual_seed(seed)
        modules.append(model().to(dtype))
    weights, _ = stack_module_state(modules)

    def one(params: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with layers_for_many():
            output = functional_call(modules[0], params, (x,))
        return classification(output, y), output

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        params = dict(zip(weights, tensors, strict=False))
        grads, (loss, output) = vmap(grad_and_value(one, has_aux=True))(params, *tensors[-2:])
        return loss, *grads.values(), output

    return step, [w.detach().clone() for w in weights.values()]


def batch_of(model: type[nn.Module], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    torch.manual_seed(100)
    return torch.randn(model.example, dtype=dtype), torch.randint(5, (BATCH,))  # type: ignore[attr-defined]


def over(lanes: int, *tensors: Tensor) -> list[Tensor]:
    return [t.expand(lanes, *t.shape) for t in tensors]


def outputs_of(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs as the engine has them: blocks of one storage."""
    shapes = [(r.shape, r.numel(), r.dtype) for r in function(*inputs)]
    whole = torch.zeros(sum(numel for _, numel, _ in shapes), dtype=shapes[0][2])
    parts = whole.split([numel for _, numel, _ in shapes])
    return [part.view(shape) for part, (shape, _, _) in zip(parts, shapes, strict=True)]


def run(model: type[nn.Module], lanes: int, x: Tensor, y: Tensor) -> list[Tensor]:
    step, weights = stacked(model, lanes)
    inputs = [*weights, x, y]
    outputs = outputs_of(step, inputs)
    program = build(step, inputs, outputs)
    assert program.path == "plan", program.refusals
    program()
    return outputs


def close(one: Sequence[Tensor], other: Sequence[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 if a.dtype == torch.float32 else 1e-13)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_every_path_computes_what_the_function_does_step_after_step(model: type[nn.Module], dtype: torch.dtype) -> None:
    step, weights = stacked(model, 3, dtype)
    x, y = batch_of(model, dtype)
    inputs = [*weights, *over(3, x, y)]
    outputs = outputs_of(step, inputs)
    for path in ("plan", "replay", "eager"):
        program = build(step, inputs, outputs, allow=(path,))
        assert program.path == path, program.refusals
        for _ in range(3):
            x.mul_(1.1).add_(0.01)
            y.copy_(y.roll(1))
            weights[0].mul_(0.9)
            program()
            close(outputs, [r.clone() for r in step(*inputs)])


@pytest.mark.parametrize("model", MODELS)
def test_forward_only_functions_have_a_plan(model: type[nn.Module]) -> None:
    step, weights = stacked(model, 2)
    inputs = [*weights, *over(2, *batch_of(model))]
    outputs = [torch.zeros(2, BATCH, 5)]
    program = build(lambda *tensors: step(*tensors)[-1:], inputs, outputs)
    program()
    assert program.path == "plan" and program.workspace_bytes > 0
    close(outputs, step(*inputs)[-1:])


@pytest.mark.parametrize("model", MODELS)
def test_a_lane_does_not_depend_on_how_many_there_are(model: type[nn.Module]) -> None:
    x, y = batch_of(model)
    whole = run(model, 16, *over(16, x, y))
    for lanes in (2, 3, 4, 7, 8):
        part = run(model, lanes, *over(lanes, x, y))
        for all_lanes, some_lanes in zip(whole, part, strict=True):
            assert torch.equal(all_lanes[:lanes], some_lanes)


@pytest.mark.parametrize("model", MODELS)
def test_a_shared_batch_gives_the_same_bits_as_a_batch_for_each(model: type[nn.Module]) -> None:
    x, y = batch_of(model)
    shared = run(model, 4, *over(4, x, y))
    gathered = run(model, 4, *(t.contiguous() for t in over(4, x, y)))
    for one, other in zip(shared, gathered, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("model", MODELS)
def test_a_broken_lane_does_not_touch_the_others(model: type[nn.Module]) -> None:
    step, weights = stacked(model, 4)
    inputs = [*weights, *over(4, *batch_of(model))]
    outputs = outputs_of(step, inputs)
    program = build(step, inputs, outputs)
    program()
    sound = [o.clone() for o in outputs]
    for broken in (torch.nan, torch.inf):
        for weight in weights:
            weight[2] = broken
        program()
        assert not outputs[0][2].isfinite()
        for lane in (0, 1, 3):
            assert all(torch.equal(o[lane], s[lane]) for o, s in zip(outputs, sound, strict=True))


class Allocations(TorchDispatchMode):
    """Counts operators that return newly allocated memory."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if all(r.alias_info is None for r in func._schema.returns) and func._schema.returns:
            self.made.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", MODELS)
def test_a_step_of_a_plan_allocates_nothing(model: type[nn.Module]) -> None:
    step, weights = stacked(model, 2)
    inputs = [*weights, *over(2, *batch_of(model))]
    outputs = outputs_of(step, inputs)
    places = [o.data_ptr() for o in outputs]
    program = build(step, inputs, outputs)
    assert program.path == "plan", program.refusals
    with Allocations() as allocations:
        program()
    assert allocations.made == []
    assert [o.data_ptr() for o in outputs] == places


# What a plan may not do


def same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(77), other.nan_to_num(77))


def program_of(function: Callable[..., Sequence[Tensor]], *inputs: Tensor) -> tuple[Program, list[Tensor]]:
    before = [x.clone() for x in inputs]
    with torch.random.fork_rng():
        outputs = [torch.zeros_like(r, memory_format=torch.contiguous_format) for r in function(*inputs)]
    for x, old in zip(inputs, before, strict=True):
        x.copy_(old)
    program = build(function, inputs, outputs)
    assert all(map(same, inputs, before))
    program()
    return program, outputs


def test_random_numbers_are_never_frozen() -> None:
    program, (output,) = program_of(lambda x: (F.dropout(x),), torch.ones(100))
    first = output.clone()
    program()
    assert program.path == "eager" and "random" in program.refusals[0]
    assert not torch.equal(first, output)


def test_building_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    build(lambda x: (F.dropout(x),), [torch.ones(100)], [torch.ones(100)])
    assert torch.equal(torch.rand(3), expected)


def test_a_function_that_writes_into_its_inputs_is_not_planned() -> None:
    count = torch.zeros(3)
    program, (output,) = program_of(lambda c: (c.add_(1) * 2,), count)
    program()
    assert program.path == "eager" and "writes into its argument" in program.refusals[0]
    assert torch.equal(count, torch.full((3,), 2.0)) and torch.equal(output, torch.full((3,), 4.0))


def test_a_function_that_reads_its_numbers_is_not_planned() -> None:
    program, (output,) = program_of(lambda x: (x * float(x.sum()),), torch.arange(3.0))
    assert program.path == "eager" and len(program.refusals) == 1
    assert torch.equal(output, torch.tensor([0.0, 3.0, 6.0]))


def test_a_number_that_changes_from_call_to_call_is_noticed() -> None:
    calls: list[int] = []
    program, _ = program_of(lambda x: (x + (calls.append(1) or len(calls)),), torch.zeros(2))  # type: ignore[func-returns-value]
    assert program.path == "eager" and "differ" in program.refusals[0]


def test_writing_into_intermediate_values_is_planned() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        y = x * 2
        y[0] = 7
        z = y.clone()
        y.add_(1)
        zeros = torch.zeros_like(x)
        zeros[1].add_(x[0])
        return y, z, zeros, y[1:] @ x[1:].mT

    x = torch.randn(3, 3)
    program, outputs = program_of(function, x)
    assert program.path == "plan", program.refusals
    for _ in range(2):
        x.add_(1)
        program()
        close(outputs, function(x))


def test_results_may_be_inputs_constants_and_views_of_each_other() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        y = x.exp()
        return x, x.t(), y, y.t(), y[0], y, torch.ones(2), torch.ones(2) * 3

    x = torch.randn(2, 2)
    program, outputs = program_of(function, x)
    x.neg_()
    program()
    assert program.path == "plan", program.refusals
    close(outputs, function(x))


def test_outputs_may_be_the_inputs() -> None:
    def function(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x + y, x * y

    x, y = torch.tensor([2.0]), torch.tensor([3.0])
    program = build(function, [x, y], [x, y])
    program()
    assert program.path == "plan" and (x.item(), y.item()) == (5.0, 6.0)


def test_operators_without_an_overload_for_outputs_are_planned() -> None:
    def function(x: Tensor, i: Tensor) -> tuple[Tensor, ...]:
        values, indices = x.topk(2)
        return values, indices, x[i], F.embedding(i, x), x.unflatten(0, (2, 2)).var((0, 1)), *x.unbind()

    x, i = torch.randn(4, 3), torch.tensor([1, 0, 3])
    program, outputs = program_of(function, x, i)
    x.copy_(x.flip(0, 1))
    i.copy_(i.roll(1))
    program()
    assert program.path == "plan", program.refusals
    close(outputs, function(x, i))


@pytest.mark.parametrize("bounds", ((-0.5, None), (None, 0.5), (-0.5, 0.5)))
def test_clamp_with_tensor_bounds_keeps_its_meaning(bounds: tuple[float | None, float | None]) -> None:
    low, high = (None if b is None else torch.tensor(b) for b in bounds)
    x = torch.tensor([-1.0, 0.0, 1.0, torch.nan, torch.inf])
    program, (output,) = program_of(lambda x: (x.clamp(low, high),), x)
    assert program.path == "plan"
    assert same(output, x.clamp(low, high))


def test_products_accumulate_in_one_kernel() -> None:
    a, b, c = torch.randn(2, 3, 4), torch.randn(2, 4, 5), torch.randn(2, 3, 5)
    program, (output,) = program_of(lambda a, b, c: (torch.bmm(a, b) + c + c,), a, b, c)
    close([output], [torch.bmm(a, b) + c + c])
    assert len(program.step.calls) == 2  # type: ignore[attr-defined]


def test_a_maximum_is_taken_before_the_relu() -> None:
    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        return grad_and_value(lambda x: (F.max_pool2d(torch.relu(x), 2) * x[..., ::2, ::2]).sum())(x)

    x = torch.randint(-3, 3, (2, 3, 8, 8)).float()  # many ties
    program, outputs = program_of(function, x)
    assert program.path == "plan", program.refusals
    relus = [c for c in program.step.calls if getattr(c, "func", None) is torch.clamp_min]  # type: ignore[attr-defined]
    assert [c.args[0].shape for c in relus] == [(2, 3, 4, 4)]
    x.neg_()
    program()
    close(outputs, function(x))


def test_gradients_of_parts_are_added_to_the_parts() -> None:
    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        return grad_and_value(lambda x: sum((x[:, i] * x[:, i + 1 :].sum(1)).sum() for i in range(4)))(x)

    program, _ = program_of(function, torch.randn(3, 5))
    assert program.path == "plan", program.refusals
    names = [getattr(c.func, "__name__", "") for c in program.step.calls if hasattr(c, "func")]  # type: ignore[attr-defined]
    assert names.count("_framed") <= 2
