"""An experiment of a script: what its section takes, and what is said about mistakes."""

import pytest
import yaml

from clipbench import config
from clipbench.config.resolved_yaml import resolved
from clipbench.config.template import write_template
from clipbench.core.trial import NOTHING
from clipbench.errors import InputError
from clipbench.planning.build import prepare
from clipbench.planning.find_contenders import contenders

SCRIPTS = {
    "train.py": "def main(clip, seed, lr=0.1, sizes=(8, 8)): ...\n\n\ndef other(clip, seed, width, **more): ...\n",
    "plain.py": "def main(seed): ...\n",
    "exits.py": "import sys\n\nsys.exit(1)\n",
    "broken.py": "def main(clip:\n",
    "timed.py": "def main(clip, seed, timeout=5): ...\n",
}
ARMS = ["none", {"name": "norm", "threshold": [0.5, 1.0]}]


@pytest.fixture
def load(tmp_path):
    for name, text in SCRIPTS.items():
        (tmp_path / name).write_text(text)

    def loader(train, function=config.load, **sections):
        path = tmp_path / "script.yaml"
        path.write_text(yaml.safe_dump({"train": train, "clip": ARMS, "seeds": 2, **sections}, sort_keys=False))
        return function(str(path))

    return loader


def test_arguments_of_the_script_are_options_and_axes(load):
    experiment = load({"script": "./train.py", "lr": [0.1, 0.2], "sizes": [4, 4]})
    assert experiment.size == 2 * 3 * 2
    assert [script["lr"] for script in experiment.scripts] == [0.1, 0.2]
    assert {script["sizes"] for script in experiment.scripts} == {(4, 4)}
    assert (experiment.data, experiment.models, experiment.optimizers) == ((None,), (NOTHING,), (NOTHING,))


def test_limits_are_no_part_of_an_id_and_arguments_are(load):
    def ids(**train):
        return [trial.id for trial in load({"script": "./train.py", **train}, prepare).trials]

    known = ids()
    assert ids(timeout="2h", memory="4GB", metrics={"bleu": "maximize"}, threads=1) == known
    assert not set(ids(lr=0.2)) & set(known)
    assert not set(ids(threads=2)) & set(known), "the order of sums depends on threads"


def test_an_argument_with_the_name_of_a_limit_takes_its_place(load):
    [script] = load({"script": "./timed.py", "timeout": 7}).scripts
    assert script.as_dict()["timeout"] == 7
    assert not script.aside


def test_the_resolved_experiment_makes_the_same_trials(load, tmp_path):
    train = {"script": "./train.py:other", "width": [3, 5], "metrics": {"bleu": "maximize"}, "target": {"val/loss": 2}}
    plan = load({**train, "timeout": "90s", "extra": "x"}, prepare)
    (tmp_path / "again.yaml").write_text(resolved(plan.experiment))
    again = prepare(str(tmp_path / "again.yaml"))
    assert [trial.id for trial in again.trials] == [trial.id for trial in plan.trials]
    assert again.higher["bleu"] is True
    assert dict(again.trials[0].script.aside)["timeout"] == 90


def test_a_sweep_searches_arguments_of_the_script(load):
    sweep = {"search": {"train.lr": {"log": [0.01, 1]}}}
    found = contenders(load({"script": "./train.py", "lr": [0.1, 0.2]}, prepare, sweep=sweep))
    assert [[param.path for param in each.hyperparameters] for each in found] == [
        ["train.lr"],
        ["threshold", "train.lr"],
    ]
    trial = found[1].trials({"threshold": 0.7, "train.lr": 0.05}, [3])[0]
    assert (trial.threshold, trial.script["lr"], trial.seed) == (0.7, 0.05, 3)
    assert trial.columns()["train.lr"] == 0.05


@pytest.mark.parametrize(
    ("train", "sections", "words"),
    [
        ({"script": "./trian.py"}, {}, "train.script: there is no file"),
        ({"script": "./trian.py"}, {}, "Did you mean `train.py`?"),
        ({"script": "./train.py:mian"}, {}, "./train.py has no function 'mian'. Did you mean `main`?"),
        ({"script": "train"}, {}, "'train' is not a script. Write ./file.py:function or package.module:function."),
        ({"script": "./train.py", "lrr": 1}, {}, "train.lrr: ./train.py:main has no option 'lrr'. Did you mean `lr`?"),
        ({"script": "./train.py:other"}, {}, "./train.py:other needs `width`."),
        ({"script": "./plain.py"}, {}, "./plain.py:main does not take `clip`. Write def main(clip, seed, ...)"),
        ({"script": "./exits.py"}, {}, 'it exits the program. Move its main part under `if __name__ == "__main__"`.'),
        ({"script": "./broken.py"}, {}, "SyntaxError: '(' was never closed"),
        (
            {"script": "./train.py"},
            {"model": "mlp"},
            "model: a script makes its own model, so this section has no effect.",
        ),
        ({"script": "./train.py", "timeout": "2 hours"}, {}, "expected a duration greater than 0, got '2 hours'."),
        ({"script": "./train.py", "memory": "lots"}, {}, "expected a size greater than 0, got 'lots'."),
        ({"script": "./train.py", "metrics": {"bleu": "up"}}, {}, "the direction of bleu must be maximize or minimize"),
        (
            {"script": "./train.py", "metrics": {"val/f1": "maximize"}},
            {},
            "a metric has no part, got 'val/f1'. Write f1.",
        ),
        ({"script": "./train.py", "target": {"loss": 1}}, {}, "expected a measure of clip.report, got 'loss'."),
        (
            {"script": "./train.py"},
            {"report": {"metric": "test/bleu"}},
            "unknown measure 'test/bleu'. Metrics of your own are declared in train.metrics; those of a script as `metrics: {NAME: maximize}`.",
        ),
        (
            {"script": "./train.py"},
            {"sweep": {"search": {"train.lrr": {"log": [1, 2]}}}},
            'sweep.search."train.lrr": ./train.py:main has no option',
        ),
        (
            {"script": "./train.py"},
            {"sweep": {"search": {"optimizer.lr": {"log": [0.1, 1]}}}},
            "a script makes its own optimizer, so this option is not searched. Write train.lr, an argument of the script.",
        ),
        (
            {"epochs": 2},
            {"sweep": {"search": {"train.l2": {"log": [1, 2]}}}},
            "each of its values is a setting of its own",
        ),
    ],
)
def test_mistakes_are_said_with_their_key(load, train, sections, words):
    with pytest.raises(InputError) as caught:
        load(train, **sections)
    assert words in str(caught.value)


def test_arms_on_parts_of_a_batch_are_refused(load):
    with pytest.raises(InputError) as caught:
        load({"script": "./train.py"}, prepare, clip=[{"name": "norm", "threshold": 1.0, "scope": "sample"}])
    assert "clip[0].scope: `scope` clips parts of a batch on their own, and a script shows" in str(caught.value)


def test_init_writes_what_the_file_of_the_script_shows(tmp_path):
    (tmp_path / "train.py").write_text(
        "import not_installed\n\ndef main(clip, seed, lr=3e-4, name='a: b', *, deep=False, rest=()):\n"
        "    return {'test/bleu': 1.0, 'test/rouge': 2.0}\n"
    )
    path = tmp_path / "study.yaml"
    write_template(path, script=str(tmp_path / "train.py"))
    text = path.read_text()
    for line in (
        "# lr: 0.0003",
        "# name: 'a: b'",
        "# deep: false",
        "metrics: {bleu: minimize} #",
        "objective: val/bleu",
    ):
        assert line in text
    assert yaml.safe_load(text)["report"]["metric"] == "test/bleu" and "rest" not in text
    (tmp_path / "train.py").write_text("def main(clip, seed, lr=0.1):\n    return {'test/loss': 1.0}\n")
    write_template(path, script=str(tmp_path / "train.py"), force=True)
    assert config.load(path).size == 48
