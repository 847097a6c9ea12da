"""The graph of a step, beside that of torch's own tracer, and what recording it must not import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from clipbench.compiler.trace import Untraceable, trace, value
from tests.cli_helpers import write
from tests.engine.step_functions import MODELS, batch_of, over, stacked

Operation = tuple[object, ...]


def operations(module: GraphModule) -> list[Operation]:
    """The operators with their arguments, and the layout of each result."""
    number = {node: f"%{position}" for position, node in enumerate(module.graph.nodes)}

    def shown(given: object) -> str:
        return str(map_arg(given, number.__getitem__))  # type: ignore[arg-type]

    def layout(node: Node) -> object:
        one = node.meta.get("val")
        return (one.shape, one.stride(), one.dtype) if isinstance(one, Tensor) else None

    return [
        (
            str(node.target) if node.op == "call_function" else node.op,
            shown(node.args),
            shown(node.kwargs),
            layout(node),
        )
        for node in module.graph.nodes
        if node.op != "output"
    ]


def expected(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> GraphModule:
    with torch.no_grad():
        module = make_fx(function)(*inputs)
    module.graph.eliminate_dead_code()
    return module


@pytest.mark.parametrize("model", MODELS)
def test_the_graph_is_that_of_make_fx(model: type[nn.Module]) -> None:
    step, weights = stacked(model, 3)
    inputs = [*weights, *over(3, *batch_of(model))]
    found = trace(step, inputs).module()
    assert operations(found) == operations(expected(step, inputs))
    for ours, theirs in zip(found(*inputs), step(*inputs), strict=True):
        assert torch.equal(ours, theirs)


def test_constants_writes_in_place_and_several_results_are_recorded() -> None:
    known = torch.arange(4.0)

    def function(x: Tensor) -> tuple[Tensor, ...]:
        scratch = x * known
        scratch.add_(1)
        largest, where = scratch.max(0)
        return (
            largest + torch.tensor(2.0),
            where,
            scratch,
            torch.zeros(4).add_(torch.tensor([1.0, 2.0, 3.0, 4.0]).mul_(2)) + x,
        )

    x = torch.randn(3, 4)
    found = trace(function, [x]).module()
    assert operations(found) == operations(expected(function, [x]))
    other = torch.randn(3, 4)
    for ours, theirs in zip(found(other), function(other), strict=True):
        assert torch.equal(ours, theirs)
    assert value(next(iter(found.graph.nodes))).shape == x.shape


TRAINING = """
import sys
from clipbench import engine
from clipbench.planning.build import prepare
for name in ("sgd", "adam", "rmsprop", "adagrad"):
    plan = prepare(sys.argv[1], [f"optimizer={{name: {name}, lr: 0.01}}"], 2)
    engines = {engine.train(cohort.trials, loop_reason=cohort.loop_reason).records["engine"][0] for cohort in plan.cohorts}
    assert engines == {"native", "looped"}, engines
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""


@pytest.mark.native
def test_planning_and_training_import_no_compiler_of_torch(tmp_path: Path) -> None:
    """`import torch._dynamo` takes as long as `import torch`."""
    models = ["mlp", {"name": "./mine.py:net", "looped": True}]
    path = write(
        tmp_path, model=models, clip=["none", {"name": "norm", "threshold": 1.0}, {"name": "value", "threshold": 0.1}]
    )
    command = [sys.executable, "-c", TRAINING, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_number_read_from_a_constant_is_the_same_at_every_step_and_one_from_an_input_is_refused() -> None:
    def of_constant(x: Tensor) -> list[Tensor]:
        mask = torch.ones(3)
        return [x * mask.sum().item() if bool(mask.all()) else x + 1]

    def of_input(x: Tensor) -> list[Tensor]:
        return [x * x.sum().item()]

    def of_written_constant(x: Tensor) -> list[Tensor]:
        kept = torch.zeros(2, 3)
        kept[0].copy_(x)
        return [x * kept.sum().item()]

    (traced,) = trace(of_constant, [torch.zeros(3)]).module()(torch.ones(3))
    assert torch.equal(traced, of_constant(torch.ones(3))[0])
    for function in (of_input, of_written_constant):
        with pytest.raises(Untraceable, match="number of Python"):
            trace(function, [torch.ones(3)])
