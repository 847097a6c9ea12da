"""Trials are trained one after another where that takes less time: chosen once for a cohort, and kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipbench.execution.choose_paths import with_choices
from clipbench.planning.build import prepare
from clipbench.store import path_choices
from clipbench.store.folder import Store
from clipbench.store.path_choices import PathChoice
from tests.cli_helpers import invoke, records, train, write

LARGE = {"model": {"name": "mlp", "hidden": [700, 700]}, "train": {"steps": 4, "batch_size": 32}, "seeds": 2}
SLOW = PathChoice("native", 2.0, 1.0)


@pytest.mark.parametrize(
    "together, looped, is_looped", [(1.0, 2.0, False), (1.0, 1.0, False), (1.05, 1.0, False), (1.2, 1.0, True)]
)
def test_one_after_another_needs_a_clear_gain(together: float, looped: float, is_looped: bool) -> None:
    choice = PathChoice("replay", together, looped)
    assert bool(choice.loop_reason) == is_looped
    if is_looped:
        assert "1e+03 ms a step, and 1.2e+03 ms by the engine replay" in choice.loop_reason


def test_a_large_model_is_timed_and_the_choice_is_kept(tmp_path: Path) -> None:
    results = tmp_path / "results"
    path = write(tmp_path, **LARGE)
    train(path, results)
    store = Store(results / "small")
    ((cohort, choice),) = path_choices.read(store).items()
    assert min(choice.together, choice.looped) > 0
    expected = "looped" if choice.loop_reason else choice.engine
    assert set(records(store.folder)["engine"]) == {expected}
    train(path, results, "--seeds", 3)
    assert path_choices.read(store) == {cohort: choice}
    assert set(records(store.folder)["engine"]) == {expected}


@pytest.mark.native
def test_a_small_model_is_not_timed(tmp_path: Path) -> None:
    train(write(tmp_path, seeds=1), tmp_path / "results")
    assert not (tmp_path / "results" / "small" / path_choices.FILE).exists()


def test_a_study_goes_on_as_it_was_chosen_and_the_records_say_why(tmp_path: Path) -> None:
    results = tmp_path / "results"
    path = write(tmp_path, **LARGE)
    train(path, results)
    store = Store(results / "small")
    (cohort,) = path_choices.read(store)
    (store.folder / path_choices.FILE).unlink()
    path_choices.add(store, {cohort: SLOW})
    path_choices.add(store, {cohort: PathChoice("native", 1.0, 1.0)})  # the first one stays
    result = train(path, results, "--seeds", 3)
    assert f"mlp: {SLOW.loop_reason}." in result.stderr
    new = records(store.folder).query("seed == 2")
    assert set(new["engine"]) == {"looped"} and set(new["engine_note"]) == {SLOW.loop_reason}
    preview = invoke("run", path, "--results", results, "--seeds", 4, "--dry-run")
    assert "looped lanes" in preview.stdout


def test_a_choice_of_a_cpu_is_none_of_a_gpu(tmp_path: Path) -> None:
    plan = prepare(write(tmp_path, **LARGE))
    store = Store(tmp_path / "store")
    path_choices.add(store, {cohort.id: SLOW for cohort in plan.cohorts})
    assert [cohort.loop_reason for cohort in with_choices(plan, store, "cpu").cohorts] == [SLOW.loop_reason]
    assert with_choices(plan, store, "cuda") == plan


def test_a_file_of_choices_that_cannot_be_read_has_none(tmp_path: Path) -> None:
    (tmp_path / path_choices.FILE).write_text('{"abc": {"engine": "native"}}')
    assert path_choices.read(Store(tmp_path)) == {}
