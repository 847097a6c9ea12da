"""The loss that article 0's listing descends on: it sums over the examples where others take the mean."""

from torch import Tensor


def half_squares(output: Tensor, target: Tensor) -> Tensor:
    """Half of the sum of squared errors, whose gradient is x' (output - target)."""
    return ((output.reshape(target.shape) - target) ** 2).sum() / 2
