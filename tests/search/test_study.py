"""A study asks Optuna for points, keeps what became of them, and loses none of them when a process is killed."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import optuna
import pytest

from clipbench.errors import InputError
from clipbench.search import concurrency
from clipbench.search.next_point import YAML
from clipbench.search.samplers_and_pruners import check_sampler
from clipbench.search.storage import JOURNAL
from tests.sweep_helpers import BOTTOM, PACE, bowl, minimise, opened, plan_and_search, smooth, study, told


def thresholds(points):
    return [point.values["threshold"] for point in points]


GP = pytest.param("gp", marks=pytest.mark.slow)  # imports torch and takes seconds


@pytest.mark.parametrize("sampler", ["tpe", GP])
def test_the_optimum_of_a_known_function_is_found_within_5_percent_in_30_points(tmp_path, sampler):
    found = minimise(study(bowl(tmp_path, {"trials": 30, "sampler": sampler, "batch": 8})), smooth)
    assert found == pytest.approx(BOTTOM, rel=0.05)


@pytest.mark.parametrize("sampler", ["tpe", GP, "random", "qmc"])
def test_points_are_distinct_also_when_the_search_goes_on_in_another_process(tmp_path, sampler):
    path, seen = bowl(tmp_path, {"trials": 24, "sampler": sampler}), []
    for _ in range(3):
        searched = study(path)
        for _ in range(2):
            points = searched.ask(4)
            seen += thresholds(points)
            for point in points:
                searched.tell(point, told(smooth(point.values["threshold"])))
    assert len(set(seen)) == len(seen) == 24
    assert study(path).left == 0


def test_the_same_search_asks_for_the_same_points(tmp_path):
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        searched = study(bowl(tmp_path / name))
        minimise(searched, smooth)
        found.append([tried.values for tried in searched.tried()])
    assert found[0] == found[1]


def test_cmaes_needs_two_numbers_and_searches_them(tmp_path):
    plan, _, (contender,) = plan_and_search(bowl(tmp_path, {"sampler": "cmaes"}))
    with pytest.raises(InputError, match=r"cmaes needs at least two numeric hyperparameters, got threshold"):
        check_sampler("cmaes", contender.hyperparameters, plan.experiment.place("sweep.sampler"))
    path = bowl(tmp_path, {"sampler": "cmaes", "search": {"optimizer.lr": {"log": [0.1, 1]}}})
    searched = study(path)
    check_sampler("cmaes", searched.contender.hyperparameters, plan.experiment.place("sweep.sampler"))
    while searched.left:
        for point in searched.ask(4):
            searched.tell(point, told((point.values["threshold"] * point.values["lr"] - 1) ** 2))
    assert len({tuple(tried.values.values()) for tried in searched.tried()}) == 12


def test_the_first_points_are_those_that_were_put_in_the_queue(tmp_path):
    searched = study(bowl(tmp_path))
    searched.set_first([(YAML, {"threshold": 0.25}), (YAML, {"threshold": 4.0}), (YAML, {"threshold": 0.25})])
    assert searched.has_first_points
    points = searched.ask(3)
    assert thresholds(points)[:2] == [0.25, 4.0]
    assert [point.origin for point in points] == ["yaml", "yaml", "search"]


def test_where_there_are_few_values_every_one_is_tried_once(tmp_path):
    clip = ["none", PACE | {"threshold": 1.0}]
    path = bowl(tmp_path, {"search": {"clip.threshold": [0.5, 1.0, 2.0, 4.0]}}, clip=clip)
    searched = study(path)
    searched.set_first([])
    assert searched.total == 4
    minimise(searched, smooth)
    assert sorted(tried.values["threshold"] for tried in searched.tried()) == [0.5, 1.0, 2.0, 4.0]


def test_a_sampler_that_stays_at_one_of_few_values_is_led_to_the_others(tmp_path):
    choices = [round(0.5 + number / 10, 1) for number in range(14)]
    clip = ["none", PACE | {"threshold": 1.0}]
    searched = study(bowl(tmp_path, {"search": {"clip.threshold": choices}, "trials": 12, "batch": 1}, clip=clip))
    minimise(searched, smooth)
    assert len({tried.values["threshold"] for tried in searched.tried()}) == 12 == len(searched.tried())


def test_numbers_have_the_digits_that_a_person_would_type(tmp_path):
    searched = study(bowl(tmp_path))
    assert all(float(f"{value:.4g}") == value for value in thresholds(searched.ask(12)))


def ask_and_die(path, count):
    """In a process of its own, with so many points of a round in the storage."""
    searched = study(path)
    create = searched.storage.create_new_trial

    def last(*given, **options):
        if len(searched.tried()) % 4 == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return create(*given, **options)

    searched.storage.create_new_trial = last
    searched.ask(4)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("sampler", ["tpe", GP, "random", "qmc", "cmaes"])
@pytest.mark.parametrize("count", [4, 2])
def test_points_of_a_killed_process_are_taken_over_with_those_that_it_had_still_to_ask_for(tmp_path, sampler, count):
    """A round of 4 points, after one whose results are known; the same as without the kill."""
    asked = []
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
        search = {"optimizer.lr": {"log": [0.1, 1]}}
        path = bowl(tmp_path / name, {"sampler": sampler, "trials": 24, "search": search})
        searched = study(path)
        searched.set_first([(YAML, {"threshold": 0.5, "lr": 0.1})])
        for _ in range(3):  # beyond the random points
            for point in searched.ask(4):
                searched.tell(point, told(smooth(point.values["threshold"])))
        if name == "killed":
            process = multiprocessing.get_context("fork").Process(target=ask_and_die, args=(path, count))
            process.start()
            process.join()
            assert process.exitcode == -signal.SIGKILL
        points = searched.take_over() or searched.ask(4)
        assert searched.take_over() == [], "they are our own now"
        assert searched.left == 8
        for point in points:
            searched.tell(point, told(1.0))
        asked.append([(each.number, each.values) for each in [*points, *searched.ask(4)]])
    assert asked[0] == asked[1]


def test_points_of_a_living_process_are_left_alone(tmp_path):
    path = bowl(tmp_path)
    code = (
        "import sys; from pathlib import Path; from tests.sweep_helpers import study;"
        "searched = study(Path(sys.argv[1])); searched.ask(4); print('asked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "asked\n"
        searched = study(path)
        assert searched.take_over() == []
        assert searched.running_elsewhere() == 4
        assert searched.left == 8
        other.communicate()
    assert len(searched.take_over()) == 4


def test_a_process_on_another_machine_is_given_time_whatever_the_clocks_say(monkeypatch):
    seen, now, start = concurrency.Heartbeats(), time.time(), time.monotonic()
    assert seen.has_ended("elsewhere:1:1:0", None)
    assert not seen.has_ended("elsewhere:1:1:0", now - 60)
    assert seen.has_ended("elsewhere:1:1:0", now - 2 * concurrency.STALE_SECONDS)
    owner = concurrency.new_owner()
    with concurrency.heartbeats(owner, list):
        assert not seen.has_ended(owner, None)
    assert seen.has_ended(owner, None), "a search that was interrupted in a notebook"
    assert not seen.has_ended("elsewhere:2:1:0", now + 86_400), "or this clock was set back"
    monkeypatch.setattr(time, "monotonic", lambda: start + 2 * concurrency.STALE_SECONDS)
    assert seen.has_ended("elsewhere:2:1:0", now + 86_400)
    assert not seen.has_ended("elsewhere:2:1:0", now + 86_460)


def test_half_a_line_that_a_killed_process_wrote_is_taken_away(tmp_path):
    path = bowl(tmp_path)
    searched = study(path)
    searched.tell(searched.ask(1)[0], told(1.0))
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole.splitlines()[-1][:20])
    again = study(path)
    assert [tried.state for tried in again.tried()] == ["complete"]
    again.tell(again.ask(1)[0], told(0.5))
    assert all(json.loads(line) for line in journal.read_text().splitlines())
    assert len(study(path).tried()) == 2


def test_optuna_itself_reads_the_journal(tmp_path):
    minimise(study(bowl(tmp_path)), smooth)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL)))
    (summary,) = optuna.get_all_study_summaries(storage)
    assert summary.study_name.startswith("bowl: ")
    assert summary.n_trials == 12


def test_a_database_takes_the_place_of_the_journal(tmp_path):
    path, url = bowl(tmp_path), f"sqlite:///{tmp_path / 'optuna.db'}"
    minimise(study(path, opened(tmp_path, url)), smooth)
    assert study(path, opened(tmp_path, url)).left == 0
    assert not (tmp_path / JOURNAL).exists()


def test_another_range_or_seed_or_objective_is_another_study(tmp_path):
    names = [study(bowl(tmp_path)).name]
    wider = ["none", PACE | {"threshold": {"log": [0.1, 100]}}]
    for sweep, changes in (({}, {"clip": wider}), ({"seeds": 2}, {}), ({"objective": "train/loss_tail"}, {})):
        names.append(study(bowl(tmp_path, sweep, **changes)).name)
    assert len(set(names)) == 4
    assert study(bowl(tmp_path, {"sampler": "random", "trials": 99, "batch": 2})).name == names[0]


def test_a_point_in_which_a_trial_diverged_wins_only_where_there_is_no_other(tmp_path):
    searched = study(bowl(tmp_path))
    first, second, third = searched.ask(3)
    searched.tell(first, told(0.1, diverged=1))
    assert searched.winner().number == first.number
    searched.tell(second, told(5.0))
    searched.tell(third, told(4.0, pruned=True))
    assert searched.winner().number == second.number


def test_several_objectives_have_a_front(tmp_path):
    searched = study(bowl(tmp_path, {"objective": ["train/loss", "train/loss_tail"], "trials": 4}))
    points = searched.ask(4)
    for point, scores in zip(points, [(1.0, 4.0), (2.0, 2.0), (3.0, 3.0), (4.0, 1.0)], strict=True):
        searched.tell(point, told(*scores))
    assert searched.pareto() == [points[0].number, points[1].number, points[3].number]
    assert searched.winner().number == points[0].number


def test_what_matters_is_told_of_two_hyperparameters_and_not_of_one(tmp_path):
    searched = study(bowl(tmp_path))
    minimise(searched, smooth)
    assert searched.importances() == {}
    searched = study(bowl(tmp_path, {"search": {"optimizer.lr": {"log": [0.1, 1]}}, "trials": 24}))
    minimise(searched, smooth)
    found = searched.importances()
    assert set(found) == {"threshold", "lr"}
    assert found["threshold"] > found["lr"], "the function does not look at the learning rate"
