"""Which column of a log is the gradient norm."""

import pytest

from clipbench.errors import InputError, Place
from clipbench.logged_norms.column_names import chosen_columns, is_step

PLACE = Place("log")
OTHERS = ["epoch", "loss", "train/loss", "lr", "max_grad_norm", "weight_norm", "grad_norm/layer1.weight"]


@pytest.mark.parametrize(
    "name",
    [
        "grad_norm", "grad_norm/pre", "train/grad_norm", "gradient_norm", "gnorm", "Gradient Norm", "gradNorm",
        "step/grad_norm/pre", "train.grad_norm", "grad_2.0_norm_total", "my run - train/grad_norm", "global_grad_norm",
        "grad_norm_before_clipping", "actor/grad_norm", "total_norm",
    ],
)  # fmt: skip
def test_names_that_say_gradient_norm_are_found(name):
    assert chosen_columns([*OTHERS, name], (), PLACE) == [name]


@pytest.mark.parametrize(
    "names",
    [
        ["grad_norm/post", "grad_norm/pre"],
        ["clipped_grad_norm", "grad_norm"],
        ["step/grad_norm/post", "epoch/grad_norm/pre_p90", "grad_norm/pre_p50", "step/grad_norm/pre"],
        ["run - grad_norm__MIN", "run - grad_norm__MAX", "run - grad_norm"],
        ["grad_norm_clipped", "grad_norm_unclipped"],
    ],
)
def test_norms_before_clipping_are_preferred(names):
    assert chosen_columns([*OTHERS, *names], (), PLACE) == names[-1:]


@pytest.mark.parametrize("name", ["Value", "norm", "1"])
def test_a_name_that_says_nothing_is_enough_if_there_is_no_other(name):
    assert chosen_columns(["Wall time", name, "epoch"], (), PLACE) == [name]


def test_columns_can_be_named_and_several_by_a_pattern():
    names = ["grad/a.weight", "grad/a.bias", "loss"]
    assert chosen_columns(names, ["loss"], PLACE) == ["loss"]
    assert chosen_columns(names, ["grad/*", "grad/a.bias"], PLACE) == names[:2]
    assert chosen_columns(["a[0]*"], ["a[0]*"], PLACE) == ["a[0]*"]


@pytest.mark.parametrize(
    ("names", "wanted", "expected"),
    [
        (["loss"], (), "no column is called a gradient norm: loss."),
        (["1", "2"], (), "no column is called a gradient norm: 1, 2."),
        (["loss", "lr"], (), "no column is called a gradient norm: loss, lr. Add `--column NAME`."),
        ([f"m{n}" for n in range(30)], (), "m18, m19 and 10 more"),
        (["actor/grad_norm", "critic/grad_norm"], (), "2 columns are gradient norms: actor/grad_norm, critic/"),
        (["grad_norm"], ["grad_nrom"], "no column of numbers 'grad_nrom'. Did you mean `grad_norm`?"),
        ([], (), "there is no column of numbers"),
    ],
)
def test_what_is_not_clear_is_an_error_that_lists_the_columns(names, wanted, expected):
    with pytest.raises(InputError) as caught:
        chosen_columns(names, wanted, PLACE)
    assert expected in str(caught.value)


def test_columns_of_steps_are_known_by_their_last_part():
    assert all(map(is_step, ["step", "Step", "_step", "global_step", "trainer/global_step", "iteration", "iter"]))
    assert not any(map(is_step, ["step/grad_norm", "epoch", "steps_per_second", "loss"]))
