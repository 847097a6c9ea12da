"""The state of CMA-ES is stored as a pickle: one that a stranger has written must not run."""

import json
import pickle

import numpy as np
import pytest
from cmaes import CMA

from clipbench.errors import ClipbenchError
from clipbench.search.cmaes_sampler import plain_state
from clipbench.search.journal import Journal
from clipbench.search.storage import JOURNAL
from tests.sweep_helpers import bowl, smooth, study, told

SEARCH = {"sampler": "cmaes", "trials": 40, "search": {"optimizer.lr": {"log": [0.1, 1]}}}
STATE, GENERATION = "cma:optimizer:0", "cma:generation"


class Program:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def tell_rounds(searched, count):
    for _ in range(count):
        for point in searched.ask(4):
            searched.tell(point, told(smooth(point.values["threshold"])))


def with_state(journal, state):
    """Write a journal again, its hashes too, with a state for each point that the sampler has chosen."""
    logs = [json.loads(line) for line in journal.read_text().splitlines()]
    journal.write_text("")
    for log in logs:
        del log["check"]
        if GENERATION in log.get("system_attrs", {}):
            log["system_attrs"] = {GENERATION: 0, STATE: state}
    Journal(journal).append_logs(logs)


def test_a_program_in_the_place_of_the_state_is_an_error_and_does_not_run(tmp_path):
    path, mark = bowl(tmp_path, SEARCH), tmp_path / "mark"
    tell_rounds(study(path), 5)
    with_state(tmp_path / JOURNAL, pickle.dumps(Program(mark)).hex())
    with pytest.raises(ClipbenchError, match=r"holds io\.open in the place of the state of cmaes\. Delete"):
        tell_rounds(study(path), 1)
    assert not mark.exists()


@pytest.mark.parametrize("text", ["", "zz", "80", pickle.dumps([1]).hex(), pickle.dumps(np.zeros(2)).hex()])
def test_what_is_no_state_is_an_error(text):
    with pytest.raises(ClipbenchError, match="in the place of the state of cmaes"):
        plain_state(text)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_state_is_read_as_it_was_written(protocol):
    written = CMA(mean=np.zeros(3), sigma=1.0, bounds=np.array([[-1, 1]] * 3), seed=0)
    written.tell([(written.ask(), float(number)) for number in range(written.population_size)])
    found = plain_state(pickle.dumps(written, protocol).hex())
    assert found.generation == 1 and np.array_equal(found._C, written._C) and np.array_equal(found._mean, written._mean)


def test_a_search_stores_its_state_and_goes_on_from_it(tmp_path):
    path = bowl(tmp_path, SEARCH)
    for _ in range(9):
        tell_rounds(study(path), 1)
    stored = [trial.system_attrs for trial in study(path).storage.get_all_trials(0)]
    assert any(STATE in each for each in stored), "else the other tests say nothing"
    assert max(each.get(GENERATION, 0) for each in stored) > 0
