"""Convolutions as products: PyTorch's numbers, values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from clipbench.engine.layers.convolution import _convolved
from clipbench.engine.layers.replace import layers_for_many

IMAGES = (5, 3, 9, 8)


def values_and_gradients(module: Callable[[Tensor], Tensor], x: Tensor, *weights: Tensor) -> list[Tensor]:
    output = module(x)
    return [output, *torch.autograd.grad(output.sin().sum(), [x, *weights])]


def assert_same(module: nn.Module) -> None:
    torch.manual_seed(0)
    module.double()
    x = torch.randn(IMAGES, dtype=torch.float64, requires_grad=True)
    expected = values_and_gradients(module, x, *module.parameters())
    with layers_for_many():
        found = values_and_gradients(module, x, *module.parameters())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", (1, 2, (3, 1)))
@pytest.mark.parametrize("padding", (0, 1, (1, 2), 4, "valid"))
@pytest.mark.parametrize("dilation", (1, 2))
@pytest.mark.parametrize("size", (3, (2, 1)))
@pytest.mark.parametrize("channels", (4, 2))
def test_convolution_is_pytorchs(stride: object, padding: object, dilation: int, size: object, channels: int) -> None:
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    assert_same(nn.Conv2d(3, channels, size, **options))  # type: ignore[arg-type]


def test_a_kernel_reaches_over_images_of_one_pixel() -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(2, 2, 5, padding=2).double()
    x = torch.randn(3, 2, 1, 1, dtype=torch.float64)
    with layers_for_many():
        found = module(x)
    torch.testing.assert_close(found, module(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", (3, 2))
@pytest.mark.parametrize("channels", (4, 3))
def test_padding_to_the_same_size_and_no_bias(size: int, channels: int) -> None:
    assert_same(nn.Conv2d(3, channels, size, padding="same" if size == 3 else 0, bias=False))


@pytest.mark.parametrize(
    "pool",
    (
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d((1, 2)),
    ),
)
def test_pooling_is_pytorchs(pool: nn.Module) -> None:
    assert_same(pool)


def test_ties_in_a_maximum_give_their_gradient_to_the_first() -> None:
    x = torch.zeros(2, 1, 4, 4, requires_grad=True)
    with layers_for_many():
        (found,) = torch.autograd.grad(F.max_pool2d(x, 2).sum(), x)
    assert torch.equal(found, torch.autograd.grad(F.max_pool2d(x, 2).sum(), x)[0])


@pytest.mark.parametrize(
    "call",
    (
        lambda x: F.conv2d(x, torch.ones(6, 1, 3, 3), groups=3),
        lambda x: F.conv2d(x[0], torch.ones(2, 3, 3, 3)),
        lambda x: F.conv1d(x[0], torch.ones(2, 9, 8), padding="same"),
        lambda x: F.max_pool2d(x, 2, return_indices=True)[1],
        lambda x: F.max_pool2d(x[0], 2),
    ),
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_unsupported_options_are_left_to_pytorch(call: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(IMAGES)
    with layers_for_many():
        found = call(x)
    assert torch.equal(found, call(x))


def test_many_models_at_once_are_one_after_another() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3, stride=2))
    x = torch.randn(IMAGES)
    weights = {name: torch.randn(4, *w.shape) for name, w in module.named_parameters()}

    def loss(params: dict[str, Tensor], x: Tensor) -> Tensor:
        with layers_for_many():
            return functional_call(module, params, (x,)).square().sum()

    together = vmap(grad(loss), in_dims=(0, None))(weights, x)
    for lane in range(4):
        alone = grad(lambda p: functional_call(module, p, (x,)).square().sum())(
            {name: w[lane] for name, w in weights.items()}
        )
        for name, expected in alone.items():
            torch.testing.assert_close(together[name][lane], expected, rtol=1e-4, atol=1e-3)


def test_the_gradient_of_the_images_is_computed_only_if_it_is_needed() -> None:
    images, weight = torch.randn(2, 4, 4, 3), torch.randn(5, 2, 3, 3, requires_grad=True)
    output, _ = _convolved(images, weight, (1, 1), (1, 1, 1, 1), (1, 1))
    assert output.grad_fn is not None and [n for n, _ in output.grad_fn.next_functions].count(None) >= 1
