"""From an experiment to cohorts and chunks: everything that is missing once, in one shape, and the same ids always."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipbench.core.trial import Component, Training, Trial
from clipbench.planning.build import prepare
from clipbench.planning.plan import FEWEST_LANES, MOST_LANES, Cohort, Plan, most_lanes
from tests.cli_helpers import write

SGD, ADAM = Component.of("sgd", lr=0.1), Component.of("adam", lr=0.001)
NAMES = ("none", "norm", "value", "zero")


def arms(count):
    return [Component.of(NAMES[number % 4], threshold=float(number)) for number in range(count)]


def cohort(name, seeds, clips, optimizers=(SGD,), lane_bytes=1000, steps=100):
    trials = tuple(
        Trial(Component.of("digits"), Component.of(name), optimizer, Training(), clip, seed)
        for optimizer in optimizers
        for clip in clips
        for seed in seeds
    )
    return Cohort(name, trials, 100, lane_bytes, steps)


@st.composite
def plans(draw):
    """A plan of one to three cohorts, the trials that are done, and the workers."""
    cohorts = tuple(
        cohort(
            f"model{number}",
            range(draw(st.integers(1, 40))),
            arms(draw(st.integers(1, 40))),
            draw(st.sampled_from([(SGD,), (SGD, ADAM)])),
            draw(st.sampled_from([10, 10**5, 10**6, 10**9])),
            draw(st.integers(1, 1000)),
        )
        for number in range(draw(st.integers(1, 3)))
    )
    plan = Plan(None, cohorts)
    skipped = draw(st.sets(st.integers(0, len(plan.trials) - 1), max_size=60))
    if draw(st.booleans()):  # nearly everything is done
        skipped = set(range(len(plan.trials))) - skipped
    done = {plan.trials[number].id for number in skipped}
    return plan, done, draw(st.integers(1, 16)), draw(st.sampled_from(["cpu", "cuda"]))


@given(plans())
@settings(max_examples=30)
def test_chunks_hold_each_missing_trial_exactly_once(case):
    plan, done, workers, device = case
    dealt = [trial.id for chunk in plan.chunks(done, workers, device) for trial in chunk.trials]
    assert sorted(dealt) == sorted({trial.id for trial in plan.trials} - done)


@given(plans())
@settings(max_examples=30)
def test_a_cut_keeps_the_shape_of_its_cohort(case):
    plan, done, workers, device = case
    for one in plan.cohorts:
        mine = [chunk for chunk in plan.chunks(done, workers, device) if chunk.cohort == one.id]
        assert len({chunk.lanes for chunk in mine}) <= 1, "padded to the same number of lanes"
        assert all(0 < len(chunk.trials) <= chunk.lanes <= most_lanes(one, device) for chunk in mine)
        assert {trial.id for chunk in mine for trial in chunk.trials} <= {trial.id for trial in one.trials}
        assert {chunk.steps for chunk in mine} <= {one.steps}


@given(plans())
@settings(max_examples=30)
def test_a_seed_is_cut_only_where_its_arms_fill_chunks_of_their_own(case):
    plan, done, workers, device = case
    for one in plan.cohorts:
        mine = [chunk for chunk in plan.chunks(done, workers, device) if chunk.cohort == one.id]
        seeds = [{trial.seed for trial in chunk.trials} for chunk in mine]
        shared = [seed for number, some in enumerate(seeds) for seed in some if some & set().union(*seeds[:number])]
        assert not shared or all(len(some) == 1 for some in seeds)


@given(plans())
@settings(max_examples=30)
def test_files_of_chunks_have_names_of_their_own(case):
    plan, done, workers, device = case
    stems = [chunk.stem for chunk in plan.chunks(done, workers, device)]
    assert len(stems) == len(set(stems))


@given(plans())
@settings(max_examples=30)
def test_the_longest_work_comes_first(case):
    plan, done, workers, device = case
    steps = [chunk.steps for chunk in plan.chunks(done, workers, device)]
    assert steps == sorted(steps, reverse=True)


def test_every_worker_gets_something_where_there_is_enough():
    plan = Plan(None, (cohort("mlp", range(8), arms(8)),))
    assert len(plan.chunks((), 1, "cpu")) == 64 // MOST_LANES
    assert [len(chunk.trials) for chunk in plan.chunks((), 4, "cpu")] == [16] * 4
    assert len(plan.chunks((), 64, "cpu")) >= 8, "never fewer lanes than a seed or FEWEST_LANES"
    assert min(chunk.lanes for chunk in plan.chunks((), 64, "cpu")) >= FEWEST_LANES


def test_large_models_are_cut_into_fewer_lanes():
    small, large = (cohort("mlp", range(8), arms(8), lane_bytes=size) for size in (10**4, 10**6))
    assert most_lanes(large, "cpu") < most_lanes(small, "cpu")
    assert most_lanes(cohort("mlp", [0], arms(1), lane_bytes=10**9), "cpu") == FEWEST_LANES


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_chunks_of_many_steps_are_small_since_all_of_them_are_kept(device):
    short, long, endless = (cohort("mlp", [0], arms(1), steps=steps) for steps in (1000, 5 * 10**5, 10**9))
    assert most_lanes(short, device) > most_lanes(long, device) > most_lanes(endless, device) == FEWEST_LANES


def test_chunks_on_a_gpu_have_as_many_lanes_as_fit_half_of_its_free_memory():
    plan = Plan(None, (cohort("mlp", range(64), arms(8), lane_bytes=10**6, steps=10),))
    lanes = {free: plan.for_gpu(free).chunks((), 1, "cuda")[0].lanes for free in (10**8, 2 * 10**8, 10**12)}
    assert 40 <= lanes[10**8] <= 50 and 80 <= lanes[2 * 10**8] <= 100 and lanes[10**12] == 512
    assert plan.for_gpu(10**8).chunks((), 1, "cpu") == plan.chunks((), 1, "cpu")


def test_a_chunk_that_is_tried_again_is_the_same_chunk():
    (chunk, *_) = Plan(None, (cohort("mlp", range(2), arms(3)),)).chunks((), 1, "cpu")
    assert (chunk.again().stem, chunk.again().trials) == (chunk.stem, chunk.trials)
    assert chunk.again().attempt == chunk.attempt + 1


# From real experiments


@pytest.fixture
def planned(tmp_path):
    return lambda **changes: prepare(str(write(tmp_path, **changes)))


def test_data_models_and_training_make_cohorts_of_their_own(planned):
    plan = planned(
        data=["wine", "breast_cancer"],
        model=["linear", {"name": "mlp", "hidden": [[4], [8]]}],
        train={"epochs": [1, 2], "batch_size": 32},
    )
    assert len(plan.cohorts) == 2 * 3 * 2 == len({one.id for one in plan.cohorts})
    assert all(len(one.trials) == 12 for one in plan.cohorts)
    assert len({trial.id for trial in plan.trials}) == 12 * 12


def test_optimizers_and_arms_and_seeds_share_a_cohort(planned):
    plan = planned(optimizer=[{"name": "sgd", "lr": [0.1, 0.2]}, {"name": "adam", "lr": 0.01}])
    assert len(plan.cohorts) == 1 and len(plan.trials) == 3 * 4 * 3


def test_the_same_experiment_has_the_same_ids_and_files_wherever_it_lies(tmp_path):
    one, other = (prepare(str(write(tmp_path / name, model="./mine.py:net"))) for name in ("a", "b c"))
    assert [trial.id for trial in one.trials] == [trial.id for trial in other.trials]
    stems = [[chunk.stem for chunk in plan.chunks((), 2, "cpu")] for plan in (one, other)]
    assert stems[0] == stems[1]


def test_an_edited_function_makes_other_trials(tmp_path):
    one = prepare(str(write(tmp_path / "a", model="./mine.py:net")))
    path = write(tmp_path / "b", model="./mine.py:net")
    own = tmp_path / "b" / "mine.py"
    own.write_text(own.read_text().replace("return self.head(x)", "return 2 * self.head(x)"))
    assert not {trial.id for trial in one.trials} & {trial.id for trial in prepare(str(path)).trials}


def test_more_seeds_and_arms_leave_the_other_ids_alone(planned):
    few = planned()
    more = planned(clip=["none", {"name": "norm", "threshold": [0.5, 1.0, 2.0]}, {"name": "value", "threshold": 0.01}])
    assert {trial.id for trial in few.trials} < {trial.id for trial in more.trials}
    assert few.cohorts[0].id == more.cohorts[0].id


def test_the_metric_follows_the_targets(planned):
    assert planned().metric == "test/accuracy" and planned().higher == {"accuracy": True}
    assert planned(data="diabetes", model="linear").metric == "test/mse"
    assert planned(report={"metric": "test/loss"}).metric == "test/loss"


def test_chunks_that_were_begun_come_first_as_they_were():
    one, two = cohort("mlp", range(4), arms(5)), cohort("cnn", range(4), arms(5))
    ids = [[trial.id for trial in each.trials] for each in (one, two)]
    begun = [ids[1][3:6] + ids[1][5:6], [ids[0][0], ids[0][1]], [ids[0][2], ids[1][0]], [], ["unknown"]]
    plan = Plan(None, (one, two))
    found = plan.chunks({ids[0][1]}, 2, "cpu", begun)
    assert [trial.id for trial in found[0].trials] == ids[1][3:6] and found[0].lanes == 4 and found[0].cohort == two.id
    everyone = [trial.id for chunk in found for trial in chunk.trials]
    assert sorted(everyone) == sorted({*ids[0], *ids[1]} - {ids[0][1]})
    assert len(found[1].trials) > 2, "of the others, no chunk holds what was begun in part"
