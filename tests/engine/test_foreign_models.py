"""Models and optimizers as people write them are trained as by a loop typed by hand, or refused with a remedy.

The loop is typed from "What a seed fixes" in clipbench/README.md, and shares nothing with the engine.
"""

from __future__ import annotations

import copy
import functools
import inspect
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from clipbench import datasets, engine
from clipbench.core.records import Records
from clipbench.core.trial import Trial
from clipbench.engine.optimizers import has_formula
from clipbench.errors import ClipbenchError, InputError
from clipbench.planning.build import prepare
from clipbench.planning.plan import Plan
from tests.engine import foreign_models as foreign
from tests.thinning import one_of

HOME = "tests.engine.foreign_models:"
EPOCHS, BATCH = 15, 16  # of 60 examples: three batches of 16 and one of 12
ARMS = ["none", {"name": "norm", "threshold": 0.5}]


@dataclass(frozen=True)
class Case:
    model: str
    note: str = ""  # words of the note; empty: it is trained as one tensor program
    optimizer: str | dict[str, Any] = "momentum"
    data: str = "table"
    loss: str = "cross_entropy"
    metrics: tuple[str, ...] = ("accuracy",)
    train: dict[str, Any] = field(default_factory=dict)
    rule: str = ""


OPTIMIZERS = {
    "plain": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "momentum": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "fast": {"name": "sgd", "lr": 0.5},
    "adam": {"name": "adam", "lr": 0.01, "weight_decay": 0.01},
}
DATA = {"rare_classes": {"split": {"val": 50, "test": 50}}}

EQUAL = {
    "a warm-up of the KL divergence by own steps": Case("KlWarmup", "`t`", loss="output", metrics=()),
    "a temperature in an object, in evaluation too": Case("CountsEverything", "`schedule.value`"),
    "the state of an LSTM carried between batches": Case("CarriedLstm", "`state`", data="series"),
    "a deque of past batches": Case("RunningScale", "`past"),
    "an iterator of turns": Case("AlternatesHeads", "`turns`"),
    "activations kept for a plot": Case("KeepsActivations", "`hidden`"),
    "a teacher whose weights follow": Case("MeanTeacher", "`teacher.body.weight`"),
    "weights bounded in forward": Case("BoundsItsWeights", "`body.weight`"),
    "an input changed in place": Case("ChangesItsInput", "input"),
    "a coin of the module random": Case("Coin", "random"),
    "noise of numpy": Case("NumpyNoise", "random"),
    "an own generator of numpy": Case("OwnNumpyGenerator", "`draw`"),
    "an own generator of torch": Case("OwnTorchGenerator", "`generator`"),
    "layers dropped, momentum": Case("LayerDrop", "no gradient"),
    "layers dropped, adam": Case("LayerDrop", "no gradient", "adam"),
    "layers dropped, an own optimizer": Case("LayerDrop", "no gradient", "grouped"),
    "dropout": Case("Dropout"),
    "features fixed by the seed, in an attribute": Case("FixedFeatures", "`directions`"),
    "initial weights of numpy and random": Case("DrawsWeightsElsewhere"),
    "checkpoints of activations": Case("Checkpointed", "vmap"),
    "a penalty on its gradient": Case("GradientPenalty", "vmap"),
    "an optimizer within": Case("TrainsAPartItself", "`part.weight`"),
    "what is no state": Case("Harmless"),
    "a compiled part": Case("compiled"),
    "a compiled forward": Case("CompiledForward"),
    "tied weights": Case("Tied"),
    "frozen weights": Case("Frozen"),
    "frozen weights and a filtering optimizer": Case("Frozen", optimizer="grouped"),
    "frozen weights and an optimizer that counts tensors": Case("Tied", optimizer="first_two"),
    "a hook on a gradient": Case("MaskedGradient", "hook"),
    "a forward hook with state": Case("StoresByHook", "`seen"),
    "weight and spectral normalization": Case("normalized", "`0.weight`"),
    "batch normalization": Case("batch_norm"),
    "sparse embeddings": Case("SparseBag", "sparse", "plain", "words"),
    "sparse embeddings by the function": Case("SparseByFunction", "sparse", "plain", "words"),
    "a number read from the batch": Case("Gate", "vmap"),
    "a loss with random numbers": Case("Mlp", "random", loss="mixed"),
    "an optimizer that filters": Case("Mlp", optimizer="filtered"),
    "an optimizer with groups by dimension": Case("Mlp", optimizer="grouped"),
    "an optimizer with groups by name": Case("Mlp", optimizer="by_name"),
    "an optimizer with slow weights": Case("Mlp", optimizer="Lookahead"),
    "an optimizer that accumulates": Case("Mlp", optimizer="Accumulates"),
    "an optimizer that adds noise": Case("Mlp", optimizer="NoisySgd"),
}

# What must be changed, and the key at which it is said.
REFUSED = {
    "a graph that is carried": (Case("CarriesItsGraph", data="series"), "model", "detach"),
    "a counter in the file": (Case("CountsInItsFile"), "model", "`COUNT`"),
    "a counter in the class": (Case("CountsInItsClass"), "model", "`CountsInItsClass.calls`"),
    "a counter in the loss": (Case("Mlp", loss="annealed"), "train.loss", "`calls`"),
    "a counter in the class of the optimizer": (
        Case("Mlp", optimizer="CountsForAll"),
        "optimizer",
        "`CountsForAll.steps`",
    ),
    "a schedule that counts": (Case("Mlp", train={"schedule": HOME + "falls"}), "train.schedule", "`value`"),
    "a rule that remembers in its file": (
        Case("Mlp", rule="below_the_last"),
        "clip",
        "`SEEN",
    ),
    "weights without a seed": (Case("WithoutSeed"), "model", "`body.weight`"),
    "another architecture for each seed": (Case("WidthBySeed"), "model", "`body.weight`"),
    "an attribute that shows the weights": (Case("ShowsItsWeights", train={"dtype": "float32"}), "model", "`shown`"),
    "a parameter that is replaced": (Case("ReplacesItsWeights"), "model", "`body.weight`"),
    "parameters without a shape": (Case("lazy"), "model", "LazyLinear"),
    "an output that is an object": (Case("ReturnsAnObject"), "model", "logits"),
    "an output that is a mapping": (Case("ReturnsAMapping"), "model", "logits"),
    "a loss for batches of one size": (Case("Mlp", loss="weighted_by_place"), "train.loss", "all examples of a part"),
    "a metric for small parts": (Case("Mlp", metrics=("only_of_small_parts",)), "train.metrics[0]", "at most 16"),
    "LBFGS": (Case("Mlp", optimizer="lbfgs"), "optimizer", "closure"),
    "sharpness-aware minimization": (Case("Mlp", optimizer="Sam"), "optimizer", "closure"),
    "an optimizer for sparse gradients": (
        Case("SparseBag", optimizer="sparse_adam", data="words"),
        "optimizer",
        "dense",
    ),
    "classes that come late": (Case("Mlp", data="rare_classes"), "data", "class 2 was drawn"),
    "an optimizer of nothing": (Case("Mlp", optimizer="finds_nothing"), "optimizer", "none of the parameters"),
}

# What shows only in training.
FAILS = {
    "an optimizer that works on copies": (Case("Mlp", optimizer="LineOfNothing"), "changed no weight"),
    "weights that are thawed later": (Case("Unfreezes"), "`body.bias`"),
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def component(name: str) -> str:
    return HOME + name if hasattr(foreign, name) else name


def plan_of(case: Case, folder: Path, **changes: Any) -> Plan:
    optimizer = OPTIMIZERS.get(case.optimizer, case.optimizer)
    experiment = {
        "data": {"name": component(case.data), **DATA.get(case.data, {"standardize": False})},
        "model": component(case.model),
        "optimizer": component(optimizer) if isinstance(optimizer, str) else optimizer,
        "train": {
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "dtype": "float64",
            "loss": component(case.loss),
            "metrics": [component(name) for name in case.metrics],
            "save_weights": True,
            **case.train,
        },
        "clip": {"name": component(case.rule), "threshold": 1.0} if case.rule else ARMS,
        "seeds": 2,
    }
    if not case.metrics:
        del experiment["train"]["metrics"]
    path = folder / "foreign.yaml"
    path.write_text(yaml.safe_dump(experiment | changes))
    return prepare(str(path))


def seed_generators(number: int) -> None:
    torch.manual_seed(number % 2**63)
    random.seed(number % 2**63)
    np.random.seed(number % 2**32)


class ByHand:
    """One trial, trained as people train a model."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.step = trial, 0
        dataset = datasets.load(trial.data)
        self.parts = {name: self._tensors(getattr(dataset, name)) for name in ("train", "val", "test")}
        build = getattr(foreign, trial.model.name.rpartition(":")[2])
        given = {"inputs": dataset.inputs, "outputs": dataset.outputs}
        seed_generators(trial.seed)
        self.model = build(**{name: given[name] for name in inspect.signature(build).parameters if name in given})
        self.model.double()
        self.optimizer = self._optimizer()

    def _tensors(self, part):
        x, y = map(torch.as_tensor, part)
        return x.double() if x.is_floating_point() else x, y

    def _optimizer(self):
        options = self.trial.optimizer.as_dict()
        name = self.trial.optimizer.name
        if not name.startswith(HOME):
            return {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name](self.model.parameters(), **options)
        function = getattr(foreign, name.removeprefix(HOME))
        if "named" in inspect.signature(function).parameters:
            return function(self.model.named_parameters(), **options)
        return function(self.model.parameters(), **options)

    def loss(self, model, x, y):
        name = self.trial.train.loss.name
        if name == "output":
            return model(x)
        function = torch.nn.functional.cross_entropy if name == "cross_entropy" else getattr(foreign, name[len(HOME) :])
        return function(model(x), y)

    def train(self, epochs: int, shards: int = 1) -> list[float]:
        batches = torch.Generator().manual_seed(self.trial.seed)
        x, y = self.parts["train"]
        losses = []
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(x), generator=batches), BATCH):
                self.step += 1
                number = 1_000_003 * self.trial.seed + self.step
                seed_generators(number)
                self.model.train()
                parts = [self._part(x[part], y[part]) for part in rows.chunk(shards)]
                losses.append(sum(loss for loss, _ in parts) / shards)
                for p, *grads in zip(self.model.parameters(), *(grads for _, grads in parts), strict=True):
                    known = [g for g in grads if g is not None]
                    p.grad = functools.reduce(torch.add, known) / shards if known else None
                seed_generators(-1 - number)
                self.optimizer.step()
        return losses

    def _part(self, x, y):
        """The loss, and the clipped gradients, of a part of a batch: of all of it, unless it is cut."""
        self.model.zero_grad()
        loss = self.loss(self.model, x, y)
        loss.backward()
        if self.trial.threshold is not None:
            self._clip(self.trial.threshold)
        return float(loss.detach()), [p.grad for p in self.model.parameters()]

    def _clip(self, threshold: float) -> None:
        """`clip_grad_norm_`, which does not take sparse gradients."""
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.stack([g.coalesce().values().norm() if g.is_sparse else g.norm() for g in grads]).norm()
        for g in grads:
            g.mul_(min(1.0, threshold / (float(norm) + 1e-6)))

    def evaluate(self, name: str) -> float:
        """On a copy, so that nothing that evaluation changes reaches training."""
        seed_generators(1_000_003 * self.trial.seed + self.step)
        # `deepcopy` takes neither locks nor tensors that were computed; these models leave nothing that training reads.
        keeps = isinstance(self.model, foreign.KeepsActivations | foreign.Harmless | torch.nn.Sequential)
        model = self.model if keeps else copy.deepcopy(self.model)
        x, y = self.parts[name]
        with torch.no_grad():
            return float(self.loss(model.eval(), x.clone(), y))

    def weights(self) -> np.ndarray:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return torch.cat([p.detach().flatten() for p in trained]).numpy()


def record(records: Records, trial: Trial) -> dict[str, object]:
    row = list(records.records["id"]).index(trial.id)
    return {name: values[row] for name, values in records.records.items()}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("name", one_of(2, EQUAL))
def test_a_foreign_model_is_trained_as_by_hand(name, tmp_path, assert_fastest):
    case = EQUAL[name]
    plan = plan_of(case, tmp_path)
    (cohort,) = plan.cohorts
    assert bool(cohort.loop_reason) == bool(case.note) and case.note in cohort.loop_reason
    records = engine.train(cohort.trials)
    optimizer = cohort.trials[0].optimizer
    engines, notes = (records.records[name] for name in ("engine", "engine_note"))
    if cohort.loop_reason:
        assert set(notes) == {cohort.loop_reason}
    elif not has_formula(optimizer):
        assert all(
            note.endswith(f"{optimizer.name} is called for each trial and step") or "native" in note for note in notes
        )
    else:
        assert_fastest(engines, notes)
    for trial in cohort.trials:
        assert_as_by_hand(records, trial)


def assert_as_by_hand(records: Records, trial: Trial, epochs: int = EPOCHS, shards: int = 1) -> None:
    loop = ByHand(trial)
    losses = loop.train(epochs, shards)
    where = f"{trial.arm}, seed {trial.seed}"
    ours = records.steps["train/loss"][records.steps["id"] == trial.id]
    np.testing.assert_allclose(ours, losses, rtol=1e-9, atol=1e-12, err_msg=where)
    np.testing.assert_allclose(records.weights[trial.id], loop.weights(), rtol=1e-8, atol=1e-11, err_msg=where)
    for part in ("train", "val", "test"):
        assert record(records, trial)[f"{part}/loss"] == pytest.approx(loop.evaluate(part), rel=1e-8), where


@pytest.mark.parametrize("model", ["CountsEverything", "RunningScale", "batch_norm"])
def test_a_lane_that_stops_early_keeps_the_state_that_it_had(model, tmp_path):
    stop = {"early_stop": {"measure": "val/loss", "patience": 1}}
    (cohort,) = plan_of(Case(model, optimizer="fast", train=stop), tmp_path).cohorts
    records = engine.train(cohort.trials)
    epochs = [record(records, trial)["stopped_epoch"] or EPOCHS for trial in cohort.trials]
    assert len(set(epochs)) > 1, "lanes go on after others have stopped"
    for trial, last in zip(cohort.trials, epochs, strict=True):
        assert_as_by_hand(records, trial, last)


@pytest.mark.parametrize("model", ["CountsEverything", "LayerDrop", "Coin"])
def test_parts_of_a_batch_are_taken_one_after_another(model, tmp_path):
    arm = {"name": "norm", "threshold": 0.2, "scope": {"shards": 2}}
    (cohort,) = plan_of(Case(model), tmp_path, clip=[arm]).cohorts
    records = engine.train(cohort.trials)
    for trial in cohort.trials:
        assert_as_by_hand(records, trial, shards=2)


@pytest.mark.parametrize("name", REFUSED)
def test_a_foreign_model_is_refused_with_what_to_change(name, tmp_path):
    case, key, words = REFUSED[name]
    with pytest.raises(InputError) as refusal:
        plan_of(case, tmp_path)
    (problem,) = refusal.value.problems
    assert problem.place.key == key and words in str(problem) and problem.remedy, str(problem)


@pytest.mark.parametrize("name", FAILS)
def test_what_shows_only_in_training_is_an_error_of_the_trial(name, tmp_path):
    case, words = FAILS[name]
    (cohort,) = plan_of(case, tmp_path).cohorts
    with pytest.raises(ClipbenchError, match=words):
        engine.train(cohort.trials)
