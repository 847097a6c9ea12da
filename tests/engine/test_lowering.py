"""A function of one lane computes the same whatever way it runs for many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.compiler.native_program import TensorAxes
from clipbench.compiler.trace import CannotCompile
from clipbench.engine import lowering
from clipbench.engine.lowering import PATHS, Bound, Lowered
from tests.engine.step_functions import MODELS, batch_of, step_of
from tests.thinning import one_of

LANE, SHARED = TensorAxes(), TensorAxes(lane=None)
Function = Callable[..., Sequence[Tensor]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=[pytest.param(path, marks=[pytest.mark.native] * (path == "native")) for path in PATHS])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The fastest path that is allowed."""

    def refuse(*_: object, **__: object) -> None:
        raise CannotCompile("the test wants another path")

    wanted: str = request.param
    steps = {"native": "NativeProgram", "replay": "trace", "eager": "vmap"}
    for faster in PATHS[: PATHS.index(wanted)]:
        monkeypatch.setattr(lowering, steps[faster], refuse)
    return wanted


def of_each(*tensors: Tensor) -> list[Bound]:
    return [(tensor, LANE) for tensor in tensors]


def results_for(function: Function, lanes: int, *inputs: Bound) -> list[Tensor]:
    """Outputs as the engine has them: blocks of one storage."""
    with torch.random.fork_rng():
        shapes = [(lanes, *r.shape) for r in function(*(axes.one(t, 0).clone() for t, axes in inputs))]
        dtypes = [r.dtype for r in function(*(axes.one(t, 0).clone() for t, axes in inputs))]
    return [torch.zeros(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]


def lowered(function: Function, lanes: int, *inputs: Bound) -> tuple[Lowered, list[Tensor]]:
    """The program and its outputs; building it leaves the inputs as they are."""
    before = [tensor.clone() for tensor, _ in inputs]
    outputs = results_for(function, lanes, *inputs)
    program = Lowered(function, inputs, of_each(*outputs), range(lanes))
    for (tensor, _), old in zip(inputs, before, strict=True):
        assert same(tensor, old)
    return program, outputs


def same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(77), other.nan_to_num(77))


def close(one: Sequence[Tensor], other: Sequence[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 if a.dtype == torch.float32 else 1e-13, equal_nan=True)


def expected(function: Function, lanes: int, *inputs: Bound) -> list[Tensor]:
    each = [function(*(axes.one(t, lane).clone() for t, axes in inputs)) for lane in range(lanes)]
    return [torch.stack(results) for results in zip(*each, strict=True)]


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_every_path_computes_what_the_function_does_step_after_step(
    model: type[nn.Module], dtype: torch.dtype, path: str
) -> None:
    step, weights = step_of(model, 3, dtype)
    x, y = batch_of(model, dtype)
    slots = torch.stack([x, x.mul(1.1).add(0.01)])
    inputs = [*of_each(*weights), (slots, TensorAxes(lane=None, step=0)), (y[None], LANE)]
    program, outputs = lowered(step, 3, *inputs)
    assert program.path == path, program.refusals
    assert len(program.refusals) == min(PATHS.index(path), 2)  # where there is no vmap, nothing is replayed
    for slot in (0, 1, 0):
        y.copy_(y.roll(1))
        weights[0].mul_(0.9)
        program(slot, range(3))
        now = [*of_each(*weights), (slots[slot], SHARED), (y, SHARED)]
        close(outputs, expected(step, 3, *now))


def test_parts_of_lanes_and_statistics_of_steps_have_their_places(path: str) -> None:
    w, x = torch.randn(3, 5), torch.randn(2, 1, 4, 5)  # [lanes, 5], [steps, copies, parts, 5]
    products, rows = torch.zeros(3, 4), torch.zeros(2, 3, 4)
    inputs = [(w, LANE), (x, TensorAxes(lane=1, part=2, step=0))]
    outputs = [(products, TensorAxes(part=1)), (rows, TensorAxes(lane=1, part=2, step=0))]
    program = Lowered(lambda w, x: ((w * x).sum(), (w - x).sum()), inputs, outputs, range(3), parts=4)
    assert program.path == path, program.refusals
    for slot in range(2):
        program(slot, range(3))
        close([products, rows[slot]], [w @ x[slot, 0].T, (w[:, None] - x[slot]).sum(-1)])


def test_lanes_of_a_group_have_their_own_numbers(path: str) -> None:
    """The first lane of the tensors is lane 4."""
    x, y = torch.randn(3, 2), torch.zeros(3, 2)
    Lowered(lambda x: (x.exp(),), of_each(x), of_each(y), range(4, 7))(0, [4, 5, 6])
    close([y], [x.exp()])


@pytest.mark.parametrize("model", one_of(2, MODELS))
def test_a_lane_does_not_depend_on_how_many_there_are(model: type[nn.Module], path: str) -> None:
    x, y = batch_of(model)
    step, weights = step_of(model, 16)
    program, whole = lowered(step, 16, *of_each(*weights, x[None], y[None]))
    program(0, range(16))
    for lanes in (2, 3, 4, 7, 8):
        program, part = lowered(step, lanes, *of_each(*(w[:lanes].clone() for w in weights), x[None], y[None]))
        program(0, range(lanes))
        for all_lanes, some_lanes in zip(whole, part, strict=True):
            assert torch.equal(all_lanes[:lanes], some_lanes)


@pytest.mark.parametrize("model", MODELS)
def test_a_shared_batch_gives_the_same_bits_as_a_batch_for_each(model: type[nn.Module], path: str) -> None:
    step, weights = step_of(model, 4)
    found = []
    for batch in ([part[None] for part in batch_of(model)], [torch.stack([part] * 4) for part in batch_of(model)]):
        program, outputs = lowered(step, 4, *of_each(*weights, *batch))
        program(0, range(4))
        found.append(outputs)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("model", MODELS)
def test_a_broken_lane_does_not_touch_the_others(model: type[nn.Module], path: str) -> None:
    step, weights = step_of(model, 4)
    program, outputs = lowered(step, 4, *of_each(*weights, *(part[None] for part in batch_of(model))))
    program(0, range(4))
    sound = [o.clone() for o in outputs]
    for broken in (torch.nan, torch.inf):
        for weight in weights:
            weight[2] = broken
        program(0, range(4))
        assert not outputs[0][2].isfinite()
        for lane in (0, 1, 3):
            assert all(torch.equal(o[lane], s[lane]) for o, s in zip(outputs, sound, strict=True))


# What a function may do, and what is not compiled


def one_lane(function: Function, *inputs: Tensor) -> tuple[Lowered, list[Tensor]]:
    """The program of a function for two lanes with the same inputs."""
    return lowered(function, 2, *of_each(*(torch.stack([x, x]) for x in inputs)))


@pytest.mark.native
def test_random_numbers_are_never_frozen() -> None:
    program, (output,) = one_lane(lambda x: (F.dropout(x),), torch.ones(100))
    program(0, range(2))
    first = output.clone()
    program(0, range(2))
    assert program.path == "looped" and "random" in program.refusals[0]
    assert not torch.equal(first, output)


def test_building_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    one_lane(lambda x: (F.dropout(x),), torch.ones(100))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.native
def test_a_function_that_writes_into_its_inputs_gets_copies() -> None:
    x, y = torch.zeros(2, 3), torch.zeros(2, 3)
    program = Lowered(lambda x: (x.add_(1) * 2,), of_each(x), of_each(y), range(2))
    program(0, range(2))
    program(0, range(2))
    assert program.path == "eager" and "writes into its argument" in program.refusals[0]
    assert torch.equal(x, torch.zeros(2, 3)) and torch.equal(y, torch.full((2, 3), 2.0))


def test_a_function_that_reads_its_numbers_is_called_for_each_lane() -> None:
    program, (output,) = one_lane(lambda x: (x * float(x.sum()),), torch.arange(3.0))
    program(0, range(2))
    assert program.path == "looped" and [each.partition(":")[0] for each in program.refusals] == ["native", "vmap"]
    assert torch.equal(output, torch.tensor([[0.0, 3.0, 6.0]] * 2))


@pytest.mark.native
def test_a_number_that_changes_from_call_to_call_is_noticed() -> None:
    calls: list[int] = []
    program, _ = one_lane(lambda x: (x + (calls.append(1) or len(calls)),), torch.zeros(2))  # type: ignore[func-returns-value]
    assert program.path == "eager" and all("differ" in refusal for refusal in program.refusals)


def test_a_fault_of_ours_is_one_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise KeyError("lane")

    monkeypatch.setattr(lowering, "NativeProgram", fault)
    with pytest.raises(KeyError):  # tests turn no fault into a slower path
        one_lane(lambda x: (x + 1,), torch.zeros(2))
    monkeypatch.setattr(lowering, "FAULTS", (KeyError,))
    program, _ = one_lane(lambda x: (x + 1,), torch.zeros(2))
    assert program.path == "replay" and "please report it" in program.refusals[0]


def test_no_memory_is_no_reason_for_a_slower_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    monkeypatch.setattr(lowering, "NativeProgram", full)
    with pytest.raises(RuntimeError, match="allocate"):
        one_lane(lambda x: (x + 1,), torch.zeros(2))


def test_a_function_that_takes_another_way_later_is_called_for_each_lane_from_then_on() -> None:
    def function(x: Tensor, late: list[bool]) -> tuple[Tensor, ...]:
        return ((x * x.sum().item()) if late else x * x.sum(),)

    late: list[bool] = []
    x, y = torch.ones(2, 3), torch.zeros(2, 3)
    program = Lowered(
        lambda x: (x.add_(0) * 1, *function(x, late)), of_each(x), of_each(torch.zeros(2, 3), y), range(2)
    )
    assert program.path == "eager"
    late.append(True)
    program(0, range(2))
    assert program.path == "looped" and torch.equal(y, torch.full((2, 3), 3.0))


def writes_within(x: Tensor) -> tuple[Tensor, ...]:
    y = x * 2
    y[0] = 7
    z = y.clone()
    y.add_(1)
    zeros = torch.zeros_like(x)
    zeros[1].add_(x[0])
    return y, z, zeros, y[1:] @ x[1:].mT


def returns_views(x: Tensor) -> tuple[Tensor, ...]:
    y = x.exp()
    return x, x.t(), y, y.t(), y[0], y, torch.ones(2), torch.ones(2) * 3


def takes_parts(x: Tensor) -> tuple[Tensor, ...]:
    i = torch.tensor([1, 0, 2])
    return x[i], F.embedding(i, x), x[:2].unflatten(0, (1, 2)).var((0, 1)), *x.unbind()


def pooled(x: Tensor) -> tuple[Tensor, ...]:
    """Many ties, before a relu."""
    whole = x.round()[None, None]
    grads, value = torch.func.grad_and_value(lambda x: (F.max_pool2d(torch.relu(x), 2) * x[..., ::2, ::2]).sum())(whole)
    return grads, value


def adds_parts(x: Tensor) -> tuple[Tensor, ...]:
    grads, value = torch.func.grad_and_value(
        lambda x: sum((x[:, i] * x[:, i + 1 :].sum(1)).sum() for i in range(3))  # type: ignore[arg-type, return-value]
    )(x)
    return grads, value


FUNCTIONS: dict[str, Function] = {
    "writes within": writes_within,
    "returns views": returns_views,
    "takes parts": takes_parts,
    "pooled": pooled,
    "adds parts": adds_parts,
    "products": lambda x: (x @ x.t() + x + x,),
    **{
        f"clamp {low} {high}": lambda x, low=low, high=high: (
            x.clamp(*(None if bound is None else torch.tensor(bound) for bound in (low, high))),
        )
        for low, high in ((-0.5, None), (None, 0.5), (-0.5, 0.5))
    },
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_functions_may_do(name: str, path: str) -> None:
    size = 2 if name == "returns views" else 4
    x = torch.randn(2, size, size) * 2
    if name.startswith("clamp"):
        x[0, 0] = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0])
    program, outputs = lowered(FUNCTIONS[name], 2, (x, LANE))
    assert program.path == path, program.refusals
    for _ in range(2):
        x.neg_()
        program(0, range(2))
        close(outputs, expected(FUNCTIONS[name], 2, (x, LANE)))


def test_outputs_may_be_the_inputs(path: str) -> None:
    x, y = torch.tensor([[2.0], [4.0]]), torch.tensor([[3.0], [5.0]])
    program = Lowered(lambda x, y: (x + y, x * y), of_each(x, y), of_each(x, y), range(2))
    program(0, range(2))
    assert program.path == path and x.view(-1).tolist() == [5.0, 9.0] and y.view(-1).tolist() == [6.0, 20.0]
