"""What a search costs beside the same search as people write it: `study.optimize` around a plain PyTorch loop."""

import statistics
import time

import optuna
import pytest
import torch
import torch.nn.functional as F
import yaml

from clipbench import datasets
from clipbench.commands.session import Session, Settings
from clipbench.engine.model.network import build_model
from clipbench.engine.optimizers import optimizer_of
from clipbench.planning.build import prepare
from clipbench.planning.find_contenders import contenders
from clipbench.search import samplers_and_pruners
from clipbench.search.settings import search_settings
from clipbench.search.sweep import SweepOptions, sweep

EXPERIMENT = {
    "name": "speed",
    "data": "digits",
    "model": {"name": "mlp", "hidden": [128]},
    "optimizer": {"name": "sgd", "lr": 1.0, "momentum": 0.9},
    "train": {"epochs": 20, "batch_size": 64},
    "clip": [
        "none",
        {"name": "norm", "threshold": {"log": [0.01, 10.0], "points": 4}},
        {"name": "value", "threshold": {"log": [0.001, 0.1], "points": 4}},
    ],
    "seeds": 8,
    "sweep": {"trials": 40, "seeds": 3},
}
ROUNDS = 2


class Clock:
    """Watches a sweep: when the search began and when it ended, without the pilot and the confirmation."""

    def __init__(self):
        self.begun, self.search, self.epochs = 0.0, 0.0, 0

    def note(self, text):
        pass

    def start(self, lane_steps, trials, done):
        self.begun = time.perf_counter()

    def advance(self, lane_steps):
        pass

    def stop(self):
        if self.standings:
            self.search = self.search or time.perf_counter() - self.begun
        self.standings = ()

    standings = ()

    def show(self, standings):
        self.standings = standings


class OneByOne:
    """One point after another, and of a point one model after another, epoch by epoch so that it can be pruned."""

    def __init__(self, plan):
        self.search = search_settings(plan)
        self.contenders = [contender for contender in contenders(plan) if contender.hyperparameters]
        data = datasets.load(plan.trials[0].data)
        self.data, self.train, self.val = data, *map(_tensors, (data.train, data.val))

    def run(self):
        """The best score of each contender, and the epochs that it took."""
        return {contender.name: self._searched(contender) for contender in self.contenders}

    def _searched(self, contender):
        self.epochs = 0
        study = optuna.create_study(
            direction="maximize",
            sampler=samplers_and_pruners.make_sampler(self.search.sampler, 1, 0),
            pruner=samplers_and_pruners.make_pruner(self.search.pruner, contender.templates[0].train.epochs),
        )
        for values in contender.given():
            study.enqueue_trial(values)
        study.optimize(lambda asked: self._objective(asked, contender), n_trials=self.search.trials)
        return study.best_value, self.epochs

    def _objective(self, asked, contender):
        values = {k.path: asked.suggest_float(k.path, k.low, k.high, log=k.log) for k in contender.hyperparameters}
        trials = contender.trials(values, self.search.seeds)
        models = [build_model(trial.model, self.data, trial.seed) for trial in trials]
        optimizers = [optimizer_of(trials[0].optimizer, list(model.named_parameters())) for model in models]
        generators = [torch.Generator().manual_seed(trial.seed) for trial in trials]
        for epoch in range(1, trials[0].train.epochs + 1):
            scores = [self._epoch(*each, trials[0]) for each in zip(models, optimizers, generators, strict=True)]
            self.epochs += len(trials)
            asked.report(statistics.fmean(scores), epoch)
            if asked.should_prune():
                raise optuna.TrialPruned
        return statistics.fmean(scores)

    def _epoch(self, model, optimizer, generator, trial):
        x, y = self.train
        for chosen in torch.split(torch.randperm(len(x), generator=generator), trial.train.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(x[chosen]), y[chosen]).backward()
            clip = torch.nn.utils.clip_grad_norm_ if trial.clip.name == "norm" else torch.nn.utils.clip_grad_value_
            clip(model.parameters(), trial.clip.as_dict()["threshold"])
            optimizer.step()
        with torch.inference_mode():
            x, y = self.val
            return float((model(x).argmax(1) == y).float().mean())


def _tensors(part):
    x, y = map(torch.as_tensor, part)
    return x.float(), y


@pytest.fixture
def one_thread():
    """So small a model gains nothing from a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("pruner", ["median", "none"])
def test_a_sweep_takes_less_than_half_the_time_of_the_same_points_one_after_another(tmp_path, pruner):
    path = tmp_path / "speed.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT | {"sweep": EXPERIMENT["sweep"] | {"pruner": pruner}}))
    plan = prepare(str(path))
    ratios = []
    for number in range(ROUNDS):
        clock, start = Clock(), time.perf_counter()
        finished = sweep(Session(Settings(results=tmp_path / str(number), mirror=False), clock), path, SweepOptions())
        whole = time.perf_counter() - start
        start = time.perf_counter()
        found = OneByOne(plan).run()
        alone = time.perf_counter() - start
        epochs = sum(contender.epochs for contender in finished.swept.contenders)
        ratios.append(alone / clock.search)
        print(
            f"{pruner}: one after another {alone:.1f} s for {sum(epochs for _, epochs in found.values())} epochs; "
            f"the search {clock.search:.1f} s for {epochs}, {alone / clock.search:.1f} times as fast; "
            f"with start, pilot, confirmation and report {whole:.1f} s, {alone / whole:.1f} times"
        )
    assert statistics.median(ratios) > 2
