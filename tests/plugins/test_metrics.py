"""Metrics and losses say what scikit-learn says, for classes, for one score and for several labels, alone or vmapped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torch.func import vmap

from clipbench.plugins import registry


def function(name: str):
    return registry.find("metric", name).function


def thrown(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes(seed: int, examples: int = 60, count: int = 4, rare: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.randint(0, count - rare, (examples,), generator=torch.Generator().manual_seed(seed))
    return thrown(seed, examples, count) + torch.nn.functional.one_hot(target, count), target


@pytest.mark.parametrize("rare", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_classes_are_those_of_scikit_learn(seed, rare):
    output, target = classes(seed, rare=rare)  # with `rare`, one class is chosen and never true
    chosen = output.argmax(1)
    assert float(function("accuracy")(output, target)) == pytest.approx(sklearn.accuracy_score(target, chosen))
    with np.errstate(all="ignore"):
        expected = sklearn.recall_score(target, chosen, average="macro", labels=np.unique(target), zero_division=0)
    assert float(function("balanced_accuracy")(output, target)) == pytest.approx(expected)
    expected = sklearn.f1_score(target, chosen, average="macro", zero_division=0)
    assert float(function("f1")(output, target)) == pytest.approx(expected)


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_one_score_are_those_of_scikit_learn(seed, column):
    target = (thrown(seed, 50) > 0.8).float()
    output = thrown(seed + 100, 50, 1) + target[:, None]
    chosen = (output[:, 0] > 0).float()
    y = target[:, None] if column else target
    assert float(function("accuracy")(output, y)) == pytest.approx(sklearn.accuracy_score(target, chosen))
    expected = sklearn.balanced_accuracy_score(target, chosen)
    assert float(function("balanced_accuracy")(output, y)) == pytest.approx(expected)
    assert float(function("f1")(output, y)) == pytest.approx(sklearn.f1_score(target, chosen))


@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_labels_are_means_over_the_labels(seed):
    target = (thrown(seed, 50, 3) > 0.3).float()
    target[:, 2] = 0  # a label that nobody has
    output = thrown(seed + 100, 50, 3) + target
    chosen = (output > 0).float()
    expected = sklearn.f1_score(target, chosen, average="macro", zero_division=0)
    assert float(function("f1")(output, target)) == pytest.approx(expected)
    assert float(function("accuracy")(output, target)) == pytest.approx(float((chosen == target).float().mean()))


@pytest.mark.parametrize("name", ["balanced_accuracy", "f1"])
def test_metrics_of_time_steps_look_at_every_step(name):
    output, target = classes(0, examples=60)
    steps = function(name)(output.view(12, 5, 4), target.view(12, 5))
    assert float(steps) == pytest.approx(float(function(name)(output, target)))


@pytest.mark.parametrize("name", registry.catalogue("metric"))
def test_every_metric_takes_many_models_at_once(name):
    metric = registry.find("metric", name).function
    if name in ("r2", "mse", "mae"):
        outputs, target = thrown(0, 3, 20, 2), thrown(1, 20, 2)
    else:
        outputs, target = thrown(0, 3, 20, 4), classes(1, 20)[1]
    together = vmap(metric, in_dims=(0, None))(outputs, target)
    torch.testing.assert_close(together, torch.stack([metric(output, target) for output in outputs]))


def test_a_guess_of_the_common_class_looks_good_only_to_accuracy():
    target = torch.tensor([0] * 95 + [1] * 5)
    output = torch.tensor([[1.0, 0.0]]).expand(100, 2)
    assert float(function("accuracy")(output, target)) == pytest.approx(0.95)
    assert float(function("balanced_accuracy")(output, target)) == pytest.approx(0.5)
    assert float(function("f1")(output, target)) < 0.5
