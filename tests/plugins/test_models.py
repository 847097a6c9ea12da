"""Every model of the catalogue trains by the plan as the plain loop does; what it is made of is what it says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from clipbench import datasets, engine
from clipbench.core.trial import Component, Training, Trial
from clipbench.engine.clipping.lane_order import order
from clipbench.engine.gradients.workspace import Workspace, WorkspaceShape
from clipbench.plugins import registry
from tests import oracle
from tests.engine import test_engine
from tests.engine.test_engine import ARMS, OPTIMIZERS, Shared, assert_same_steps, steps_of
from tests.thinning import one_of

C = Component.of
IMAGES = C("digits", limit=60)
VECTORS = C("tests.toys:sequences", features=3)
TOKENS = C("tests.toys:sequences")
TEXT = C("tests.toys:sequences", answers="steps")
CELLS = {"hidden": 5, "layers": 1, "embedding": 3}
RNN = {**CELLS, "activation": "tanh", "init": "default", "std": None}
BLOCKS = {"width": 6, "heads": 2, "layers": 2, "hidden": 7, "causal": None}
GPT = {"width": 6, "heads": 2, "layers": 2, "dropout": 0.2}
CNN = {"channels": [3, 4], "hidden": 8, "kernel": 3, "padding": "same", "pool": "max", "pool_after": "each"}
# Small ones, with the options that change what is computed.
MODELS = {
    "rnn": (VECTORS, C("rnn", **RNN)),
    "rnn relu, two layers": (VECTORS, C("rnn", **{**RNN, "activation": "relu", "layers": 2})),
    "rnn sigmoid": (TOKENS, C("rnn", **{**RNN, "activation": "sigmoid", "init": "sigmoid"})),
    "rnn smart": (TEXT, C("rnn", **{**RNN, "init": "smart", "std": 0.3, "layers": 2})),
    "rnn by rows": (IMAGES, C("rnn", **{**RNN, "init": "basic"})),
    "gru": (TOKENS, C("gru", **CELLS)),
    "gru, two layers": (TEXT, C("gru", **{**CELLS, "layers": 2})),
    "lstm": (VECTORS, C("lstm", **CELLS)),
    "lstm, two layers": (TEXT, C("lstm", **{**CELLS, "layers": 2})),
    "transformer": (VECTORS, C("transformer", **BLOCKS)),
    "transformer on text": (TEXT, C("transformer", **BLOCKS)),
    "transformer, causal": (TOKENS, C("transformer", **{**BLOCKS, "causal": True})),
    "deep_mlp": (IMAGES, C("deep_mlp", depth=4, width=5, activation="tanh", scale=1.5)),
    "gpt": (TEXT, C("gpt", **GPT, tied=False)),
    "gpt, tied": (C("text", path="", length=8, characters=900), C("gpt", **GPT, tied=True)),
    "resnet, batch normalization": (IMAGES, C("resnet", channels=[4, 6], blocks=1, groups=2, norm="batch")),
    "resnet": (IMAGES, C("resnet", channels=[4, 6], blocks=1, groups=2)),
    "cnn of article 1": (IMAGES, C("cnn", **{**CNN, "padding": "none", "pool": "average", "pool_after": "last"})),
    "cnn of article 2": (IMAGES, C("cnn", **{**CNN, "channels": [4], "hidden": 0, "padding": "none"})),
}
# For what takes long; the others are slow tests there.
KINDS = ("rnn", "gru", "transformer", "deep_mlp", "cnn of article 2")
every_kind = pytest.mark.parametrize("model", one_of(len(MODELS), MODELS, [k for k in KINDS if k != "transformer"]))
# Rules of every place; the product of all rules with all optimizers is held on simpler models.
CHOSEN = ("none", "norm", "norm per unit p=1", "norm without head", "agc per tensor", "value", "skip", "autoclip")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def trials_of(
    model: str, optimizer: str, dtype: str, steps: int, seeds: tuple[int, ...] = (3,), arms: Sequence[str] = CHOSEN
) -> list[Trial]:
    data, component = MODELS[model]
    train = Training(
        epochs=None, steps=steps, batch_size=16, loss=C("cross_entropy"), metrics=(C("accuracy"),), dtype=dtype
    )
    return [Trial(data, component, OPTIMIZERS[optimizer], train, ARMS[arm], seed) for seed in seeds for arm in arms]


@pytest.mark.parametrize("model", one_of(3, MODELS, KINDS))
def test_cohort_equals_the_plain_loop(model, assert_fastest):
    # The bias of GPT's keys starts at 0 and has the gradient 0 up to rounding. Adam makes steps of it that are as large as
    # others, and agc sees them in the norm of the bias.
    arms = CHOSEN if model in KINDS else CHOSEN[list(MODELS).index(model) % 2 :: 2]
    trials = trials_of(model, "momentum" if model.startswith("gpt") else "adam", "float64", 12, arms=arms)
    records = engine.train(trials)
    assert_fastest(records.records["engine"], records.records["engine_note"])
    data = datasets.load(trials[0].data)
    for trial in trials:
        assert_same_steps(records, trial, oracle.Loop(trial, data).train(12), 1e-8)


@every_kind
def test_every_float32_step_equals_the_plain_loops_from_the_same_weights(model):
    trials = order(trials_of(model, "momentum", "float32", 10))
    data = datasets.load(trials[0].data)
    cohort = Shared(trials, Workspace(WorkspaceShape.of(trials, "cpu"), data, slots=1))
    cohort.attach([oracle.Loop(trial, data) for trial in trials])
    outcome = cohort.run(lambda done: None)
    for lane, loop in enumerate(cohort.loops):
        for row, name in enumerate(("loss", "pre", "post", "maximum")):
            # The last bits decide on which side of a kink a unit of the larger networks is.
            np.testing.assert_allclose(outcome.steps[:, row, lane], loop.run.column(name), rtol=2e-4, atol=1e-6)


@every_kind
def test_a_trial_does_not_depend_on_its_neighbours(model):
    trials = trials_of(model, "momentum", "float32", 6, seeds=(0, 1))
    together = engine.train(trials)
    for chosen in (trials[:1], trials[3:10]):
        alone = engine.train(chosen)
        for trial in chosen:
            for name, column in steps_of(alone, trial).items():
                np.testing.assert_array_equal(column, steps_of(together, trial)[name], err_msg=f"{trial.arm} {name}")


def test_every_model_of_the_catalogue_is_compared_with_the_loop():
    compared = {model.name for _, model in [*MODELS.values(), *test_engine.MODELS.values()]}
    # The others are objectives without data, and in test_training.py.
    assert compared == {name for name, plugin in registry.catalogue("model").items() if plugin.given}


# Single models


def built(name: str, seed: int = 0, **options: object) -> nn.Module:
    sizes = {"inputs": (7, 3), "outputs": 4, "tokens": 0, "every_step": False}
    plugin = registry.find("model", name)
    torch.manual_seed(seed)
    return plugin.function(**{**{key: sizes[key] for key in plugin.given}, **options})


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_recurrent_models_start_as_torchs_layers_do(name):
    network = built(name, hidden=5, layers=2)
    torch.manual_seed(0)
    layer = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[name](3, 5, 2, batch_first=True)
    for key, weight in layer.state_dict().items():
        assert torch.equal(network.cells.state_dict()[key], weight)


def test_a_sigmoid_network_is_the_recurrence_that_it_says():
    network = built("rnn", hidden=5, layers=2, activation="sigmoid").double()
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    steps = x
    for into, on, into_bias, on_bias in network.cells.all_weights:
        state, states = torch.zeros(2, 5, dtype=torch.float64), []
        for t in range(7):
            state = torch.sigmoid(steps[:, t] @ into.T + into_bias + state @ on.T + on_bias)
            states.append(state)
        steps = torch.stack(states, 1)
    torch.testing.assert_close(network(x), network.head(steps[:, -1]))


def test_initialisations_are_those_of_the_paper():
    basic, sigmoid = (built("rnn", hidden=200, init=init) for init in ("basic", "sigmoid"))
    for network, std in ((basic, 0.1), (sigmoid, 0.01)):
        assert network.cells.weight_hh_l0.std().item() == pytest.approx(std, rel=0.05)
        assert not network.cells.bias_hh_l0.any() and not network.head.bias.any()
    smart = built("rnn", hidden=50, init="smart")
    weight = smart.cells.weight_hh_l0
    assert (weight != 0).sum(1).tolist() == [15] * 50
    assert torch.linalg.eigvals(weight).abs().max().item() == pytest.approx(0.95, rel=1e-4)
    assert smart.head.weight.std().item() == pytest.approx(0.01, rel=0.3)


def test_a_deep_network_starts_at_its_scale():
    network = built("deep_mlp", depth=6, width=100, scale=2.0)
    inner = [p for name, p in network.named_parameters() if name.startswith("hidden") and p.shape == (100, 100)]
    assert len(inner) == 5
    assert torch.stack(inner).std().item() == pytest.approx(2.0 / math.sqrt(100), rel=0.02)


def test_a_causal_transformer_sees_nothing_that_comes_later():
    network = built("transformer", inputs=7, tokens=6, every_step=True)
    x = torch.randint(0, 6, (2, 7))
    later = x.clone()
    later[:, 4:] = (later[:, 4:] + 1) % 6
    one, other = network(x), network(later)
    assert one.shape == (2, 7, 4)
    assert torch.equal(one[:, :4], other[:, :4]) and not torch.allclose(one[:, 4:], other[:, 4:])


@pytest.mark.parametrize("name", ["rnn", "transformer"])
@pytest.mark.parametrize("inputs, shape", [(64, (64,)), (10, (10,)), ((3, 8, 8), (3, 8, 8)), ((7, 3), (7, 3))])
def test_sequences_are_made_of_any_example(name, inputs, shape):
    assert built(name, inputs=inputs)(torch.randn(2, *shape)).shape == (2, 4)


def test_articles_networks_have_the_articles_sizes():
    first = {"channels": [32, 64], "hidden": 128, "padding": "none", "pool": "average", "pool_after": "last"}
    one = built("cnn", inputs=(1, 36, 36), outputs=10, **first)
    assert one.hidden.in_features == 64 * 16 * 16 and one.head.in_features == 128
    two = built("cnn", inputs=(1, 28, 28), outputs=10, channels=[32], hidden=0, padding="none")
    assert two.head.in_features == 32 * 13 * 13


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_grey_images_are_the_same_flat_by_rows_and_with_a_channel(name):
    x = torch.rand(2, 64)
    answers = []
    for inputs, shape in ((64, (64,)), ((8, 8), (8, 8)), ((1, 8, 8), (1, 8, 8))):
        torch.manual_seed(0)
        answers.append(built(name, inputs=inputs)(x.view(2, *shape)))
    assert all(torch.equal(answer, answers[0]) for answer in answers)


def test_digits_by_rows_are_the_flat_ones():
    flat, rows = (datasets.load(Component.of("digits", rows=rows)) for rows in (False, True))
    assert rows.inputs == (8, 8)
    np.testing.assert_array_equal(rows.train[0].reshape(-1, 64), flat.train[0])


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("cnn", {"inputs": (1, 1, 8, 8)}, "must have 2 or 3 dimensions"),
        ("rnn", {"std": 0.1}, "std needs init"),
        ("transformer", {"width": 10, "heads": 4}, "multiple of heads"),
        ("cnn", {"inputs": (1, 4, 4), "padding": "none"}, "reduce an image of the shape"),
        ("resnet", {"inputs": 30}, "not a square image"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_with_a_message(name, options, says):
    with pytest.raises(ValueError, match=says):
        built(name, **options)
