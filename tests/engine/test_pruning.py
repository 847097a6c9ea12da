"""Trials that a parent prunes stop at the end of the epoch, the others never notice; the parent is asked in lockstep."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from clipbench import engine
from clipbench.core.trial import Component, Training, Trial
from clipbench.execution.worker_pool import WorkerPool
from clipbench.planning.plan import Chunk
from clipbench.reporting import compare, notes
from clipbench.store.folder import Store
from tests.cli_helpers import TIMINGS, write

C = Component.of
TABLE = C("noise_regression", samples=60, features=4, seed=0)  # 36 examples to train on: 3 steps an epoch
EPOCHS = 6
TRAIN = Training(epochs=EPOCHS, batch_size=12, loss=C("mse"), metrics=(C("r2"),), save_weights=True)
MODEL = C("mlp", hidden=[5], activation="tanh", bias=True)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def trials_of(train: Training = TRAIN, lrs=(0.01, 0.02, 0.03), seeds=(0, 1)) -> list[Trial]:
    return [Trial(TABLE, MODEL, C("sgd", lr=lr), train, C("none"), seed) for lr in lrs for seed in seeds]


class PointPruner:
    """Prunes trials at given epochs, and keeps what it was told."""

    def __init__(self, when: dict[str, int] | None = None) -> None:
        self.when, self.told = when or {}, {}

    def __call__(self, epoch, told):
        assert epoch not in self.told
        self.told[epoch] = told
        return {id_ for id_ in told if self.when.get(id_) == epoch}


def row_of(records, id_: str) -> dict:
    (row,) = np.flatnonzero(records.records["id"] == id_)
    return {name: column[row] for name, column in records.records.items()}


def series_of(table, id_: str) -> dict[str, np.ndarray]:
    return {name: column[table["id"] == id_] for name, column in table.items()}


def assert_same_trial(one, other, id_: str) -> None:
    for name, value in row_of(one, id_).items():
        if name not in TIMINGS:
            np.testing.assert_equal(value, row_of(other, id_)[name], err_msg=name)
    for table in ("epochs", "steps"):
        for name, column in series_of(getattr(one, table), id_).items():
            np.testing.assert_array_equal(column, getattr(other, table)[name][getattr(other, table)["id"] == id_])
    np.testing.assert_array_equal(one.weights[id_], other.weights[id_])


# The engine


def test_a_pruned_trial_ends_with_its_epoch_and_is_never_tested():
    trials = trials_of()
    lost = trials[3].id
    whole, pruned = engine.train(trials), engine.train(trials, choose_pruned=PointPruner({lost: 2}))
    row = row_of(pruned, lost)
    assert (row["status"], row["epochs"], row["stopped_epoch"], row["diverged"]) == ("pruned", 2, None, 0)
    assert row["test/loss"] is None and row["train/loss"] is None and lost not in pruned.weights
    before = series_of(whole.epochs, lost)
    for name, column in series_of(pruned.epochs, lost).items():
        np.testing.assert_array_equal(column, before[name][:2])
    for name, column in series_of(pruned.steps, lost).items():
        np.testing.assert_array_equal(column, series_of(whole.steps, lost)[name][:6])
    assert row["val/loss"] == before["val/loss"][1] and row["best_val/loss"] == before["val/loss"][:2].min()
    assert row["train/loss_tail"] == pytest.approx(series_of(pruned.steps, lost)["train/loss"][3:].mean())


def test_who_is_not_pruned_does_not_notice():
    trials = trials_of()
    whole = engine.train(trials)
    pruned = engine.train(trials, choose_pruned=PointPruner({trials[0].id: 1, trials[3].id: 2, trials[4].id: 5}))
    for trial in (trials[1], trials[2], trials[5]):
        assert row_of(pruned, trial.id)["status"] == "finished"
        assert_same_trial(pruned, whole, trial.id)


def test_what_is_told_is_what_the_table_of_epochs_says():
    trials, adviser = trials_of(), PointPruner()
    records = engine.train(trials, choose_pruned=adviser)
    assert list(adviser.told) == [1, 2, 3, 4, 5], "every epoch but the last"
    for epoch, told in adviser.told.items():
        assert set(told) == {trial.id for trial in trials}
        for id_, measures in told.items():
            row = {name: column[epoch - 1] for name, column in series_of(records.epochs, id_).items()}
            assert {"train/loss", "val/loss", "val/r2"} <= set(measures) <= set(row)
            assert measures == pytest.approx({name: row[name] for name in measures}, rel=1e-12)


def test_what_is_not_measured_in_an_epoch_is_not_told():
    adviser = PointPruner()
    engine.train(trials_of(replace(TRAIN, evaluate_every=2)), choose_pruned=adviser)
    measured = {epoch: "val/loss" in next(iter(told.values())) for epoch, told in adviser.told.items()}
    assert measured == {1: False, 2: True, 3: False, 4: True, 5: False}


def test_a_trial_pruned_between_evaluations_has_no_validation_measure_of_its_end():
    trials = trials_of(replace(TRAIN, evaluate_every=2))
    records = engine.train(trials, choose_pruned=PointPruner({trial.id: 3 for trial in trials}))
    assert set(records.records["status"]) == {"pruned"}
    assert "val/loss" not in records.records and all(records.records["best_val/loss"] > 0)
    assert np.isnan(records.epochs["val/loss"]).reshape(len(trials), 3).tolist() == [[True, False, True]] * len(trials)


def test_of_a_diverged_trial_nothing_is_told_but_nan_and_of_a_pruned_one_nothing():
    trials = trials_of(lrs=(0.01, 1e30))
    wild = [trial.id for trial in trials if trial.optimizer["lr"] == 1e30]
    calm = [trial.id for trial in trials if trial.id not in wild]
    adviser = PointPruner({calm[0]: 2, wild[0]: 3})
    records = engine.train(trials, choose_pruned=adviser)
    assert row_of(records, wild[0])["status"] == row_of(records, wild[1])["status"] == "diverged"
    for told in adviser.told.values():
        assert all(math.isnan(value) for id_ in wild for value in told[id_].values())
        assert all(set(told[id_]) == set(told[calm[1]]) for id_ in wild)
    assert [epoch for epoch, told in adviser.told.items() if calm[0] in told] == [1, 2]


def test_of_a_trial_that_has_stopped_the_last_is_told():
    stop = C("val/loss", patience=1, min_delta=0.0)
    trials, adviser = trials_of(replace(TRAIN, early_stop=stop), lrs=(0.01, 0.0)), PointPruner()
    still = [trial.id for trial in trials if trial.optimizer["lr"] == 0.0]
    records = engine.train(trials, choose_pruned=adviser)
    assert {row_of(records, id_)["stopped_epoch"] for id_ in still} == {2}
    for id_ in still:
        assert adviser.told[5][id_] == adviser.told[2][id_]


def test_the_same_trial_twice_in_a_chunk_is_told_once_and_pruned_as_one():
    trials = trials_of()[:1]
    adviser = PointPruner({trials[0].id: 2})
    records = engine.train(trials, lanes=4, choose_pruned=adviser)
    assert list(adviser.told) == [1, 2], "nobody is left to train"
    assert list(records.records["status"]) == ["pruned"] and len(records.steps["step"]) == 6


def test_a_chunk_without_anybody_left_ends():
    trials, told = trials_of(replace(TRAIN, epochs=1000)), []
    engine.train(trials, progress=told.append, choose_pruned=PointPruner({trial.id: 2 for trial in trials}))
    assert len(told) < 20 and sum(told) == len(trials) * 3000


def test_waiting_for_an_answer_is_no_part_of_a_trials_time():
    def slow(epoch, told):
        time.sleep(0.3)
        return ()

    records = engine.train(trials_of(), choose_pruned=slow)
    assert sum(records.records["seconds"]) < 5 * 0.3


# The parent, with real workers

LAZY = """
import os, random, time
import torch
from clipbench import metric

CLOCK = random.Random(os.getpid())

@metric(higher_is_better=True)
def lazy(output, target):
    time.sleep(CLOCK.random() / 50)
    return output.mean()
"""
UNLUCKY = """
from clipbench import strategy

@strategy(per="model")
def unlucky(n, step, threshold):
    if step > 5 and (threshold > 6).any():  # in the second epoch
        raise RuntimeError("no seven")
    return 1 + 0 * n, n > threshold
"""


def experiment(folder, **changes):
    """Three chunks for three workers: one for each seed. Four epochs of a few steps."""
    clip = ["none", {"name": "norm", "threshold": [0.1, 0.5, 1.0]}]
    train = {"epochs": 4, "batch_size": 32, "metrics": ["./lazy.py:lazy"]}
    folder.mkdir()
    (folder / "lazy.py").write_text(LAZY)
    (folder / "unlucky.py").write_text(UNLUCKY)
    return write(folder, **{"clip": clip, "train": train, "seeds": 3, **changes})


def chunks_of(pool: WorkerPool, path) -> list[Chunk]:
    plan = pool.call("clipbench.planning.build:prepare", str(path))
    return plan.chunks((), 3, "cpu")


class Panel:
    """Of all trials of a round, those whose loss is over the mean of all go, one at most. Keeps every round."""

    def __init__(self) -> None:
        self.rounds = []

    def __call__(self, questions):
        self.rounds.append([(question.epoch, sorted(question.measured)) for question in questions])
        losses = {id_: told["val/loss"] for question in questions for id_, told in question.measured.items()}
        worst = max(losses, key=lambda id_: (losses[id_], id_))
        return [{worst, "a trial that is not there"} for _ in questions]


class Bound:
    """Prunes by each trial's own loss. Kills a worker, or does whatever else is asked of it, in one round."""

    def __init__(self, bound: float, accident=lambda: None) -> None:
        self.bound, self.accident, self.asked = bound, accident, Counter()

    def __call__(self, questions):
        self.asked.update((id_, question.epoch) for question in questions for id_ in question.measured)
        if len({question.epoch for question in questions}) == 1 and questions[0].epoch == 2:
            self.accident()
            self.accident = lambda: None
        return [
            {id_ for id_, told in question.measured.items() if question.epoch == 2 and told["val/loss"] > self.bound}
            for question in questions
        ]


def trained(pool: WorkerPool, chunks, advise=None):
    """Each trial's row without what a clock says; errors; and all lane-steps are told of, whatever happens."""
    rows, lane_steps, errors = {}, 0, []
    for event in pool.train(chunks, "cpu", choose_pruned=advise):
        lane_steps += event.lane_steps
        if event.records:
            frame = pd.DataFrame(event.records.records).drop(columns=[*TIMINGS])
            rows |= {
                row["id"]: {k: v for k, v in row.items() if v is not None and v == v}
                for row in frame.to_dict("records")
            }
        if event.error:
            errors += [(trial.id, event.error) for trial in event.chunk.trials]
    assert lane_steps == sum(chunk.lane_steps for chunk in chunks)
    return rows, errors


def test_workers_go_from_epoch_to_epoch_together_whoever_is_faster(tmp_path):
    seen = []
    for folder in ("one", "two", "three"):
        with WorkerPool(3) as pool:
            chunks, panel = chunks_of(pool, experiment(tmp_path / folder)), Panel()
            rows, errors = trained(pool, chunks, panel)
        assert len(chunks) == 3 and not errors
        assert [[epoch for epoch, _ in asked] for asked in panel.rounds] == [[1] * 3, [2] * 3, [3] * 3]
        for number, asked in enumerate(panel.rounds):
            for chunk, (_, ids) in zip(chunks, asked, strict=True):
                assert set(ids) <= {trial.id for trial in chunk.trials}, "in the order of the chunks"
            assert sum(len(ids) for _, ids in asked) == 12 - number
        assert Counter(row["status"] for row in rows.values()) == {"finished": 9, "pruned": 3}
        seen.append((panel.rounds, rows))
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_done_takes_the_next_chunk_before_others_are_answered(tmp_path, workers):
    with WorkerPool(workers) as pool:
        chunks, panel = chunks_of(pool, experiment(tmp_path / "one")), Panel()
        rows, _ = trained(pool, chunks, panel)
    rounds = [[epoch for epoch, _ in asked] for asked in panel.rounds]
    assert rounds == ([[1, 1], [2, 2], [3, 3], [1], [2], [3]] if workers == 2 else [[1], [2], [3]] * 3)
    assert Counter(row["status"] for row in rows.values()) == {"finished": 12 - len(rounds), "pruned": len(rounds)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A bound that half of the trials are over, and what comes of it."""
    path, losses = experiment(tmp_path_factory.mktemp("undisturbed") / "one"), []

    def listen(questions):
        losses.extend(told["val/loss"] for question in questions for told in question.measured.values())
        return [()] * len(questions)

    with WorkerPool(3) as pool:
        chunks = chunks_of(pool, path)
        trained(pool, chunks, listen)
        bound = float(np.median(losses[12:24]))  # of the second epoch
        rows, errors = trained(pool, chunks, Bound(bound))
    assert not errors and Counter(row["status"] for row in rows.values()) == {"finished": 6, "pruned": 6}
    return bound, rows


def test_a_worker_that_dies_between_epochs_is_replaced_and_its_trials_are_asked_about_again(tmp_path, undisturbed):
    bound, expected = undisturbed

    def kill() -> None:
        os.kill(max(process.pid for process in multiprocessing.active_children()), signal.SIGKILL)

    with WorkerPool(3) as pool:
        chunks, advise = chunks_of(pool, experiment(tmp_path / "one")), Bound(bound, kill)
        rows, errors = trained(pool, chunks, advise)
    assert rows == expected and not errors
    twice = {id_ for (id_, epoch), count in advise.asked.items() if epoch == 1 and count == 2}
    assert twice in [{trial.id for trial in chunk.trials} for chunk in chunks]


def test_a_chunk_that_fails_is_halved_and_asked_about_in_its_parts(tmp_path, undisturbed):
    bound, expected = undisturbed
    clip = ["none", {"name": "norm", "threshold": [0.1, 0.5, 1.0]}, {"name": "./unlucky.py:unlucky", "threshold": 7.0}]
    with WorkerPool(3) as pool:
        chunks, advise = chunks_of(pool, experiment(tmp_path / "one", clip=clip)), Bound(bound)
        rows, errors = trained(pool, chunks, advise)
    unlucky = {trial.id for chunk in chunks for trial in chunk.trials if trial.threshold == 7.0}
    assert {id_ for id_, _ in errors} == unlucky and {error for _, error in errors} == {"RuntimeError: no seven"}
    assert rows == expected
    assert all(advise.asked[id_, 1] >= 2 and not advise.asked[id_, 2] for id_ in unlucky)


def test_an_adviser_that_breaks_ends_the_training(tmp_path):
    def broken(questions):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), WorkerPool(2) as pool:
        trained(pool, chunks_of(pool, experiment(tmp_path / "one")), broken)


def test_without_a_pruner_every_trial_finishes(undisturbed, tmp_path):
    with WorkerPool(3) as pool:
        rows, _ = trained(pool, chunks_of(pool, experiment(tmp_path / "one")))
    assert {row["status"] for row in rows.values()} == {"finished"}
    kept = {id_ for id_, row in undisturbed[1].items() if row["status"] == "finished"}
    assert all(rows[id_] == undisturbed[1][id_] for id_ in kept)


# What is kept of them


def test_a_pruned_trial_is_stored_and_trained_again_by_whoever_wants_all_of_it(tmp_path):
    trials, store = trials_of(), Store(tmp_path)
    lost = trials[3].id
    store.save(engine.train(trials, choose_pruned=PointPruner({lost: 2})), "a")
    assert store.done() == {trial.id for trial in trials} - {lost}
    assert len(store.epochs({lost})) == 2 and len(store.steps({lost})) == 6
    store.save(engine.train(trials), "b")
    assert lost in store.done() and len(store.epochs({lost})) == EPOCHS


def test_a_pruned_trial_is_in_no_comparison(tmp_path):
    trials = trials_of(seeds=(0, 1, 2))
    records = engine.train(trials, choose_pruned=PointPruner({trials[0].id: 2}))
    report = compare(pd.DataFrame(records.records))
    assert all(trials[0].id not in row.ids for setting in report.settings for row in setting.rows)
    assert any("1 trial stopped early by the search" in note for note in notes.of_report(report))
