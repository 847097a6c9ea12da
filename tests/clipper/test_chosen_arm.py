"""`Clipper.from_report`: the arm that a report recommends, or the best threshold of another strategy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict

import pytest
from torch import nn

import clipbench
from clipbench.errors import InputError
from tests.cli_helpers import train, write

MODEL = nn.Sequential(OrderedDict(hidden1=nn.Linear(4, 8), tanh=nn.Tanh(), head=nn.Linear(8, 2)))
ARMS = ["none", {"name": "norm", "threshold": [0.5, 1.0]}, {"name": "agc", "threshold": 0.01, "exclude": ["head"]}]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A run of a small experiment, too short to recommend an arm."""
    root = tmp_path_factory.mktemp("study")
    train(write(root, clip=ARMS), root / "results", "--workers", "1")
    return root / "results" / "small"


@pytest.fixture
def changed(study, tmp_path):
    """A function that writes that report with some of its settings changed."""

    def change(*settings, **report):
        document = json.loads((study / "report.json").read_text("utf-8"))
        if settings:
            document["settings"] = [document["settings"][0] | each for each in settings]
        (tmp_path / "report.json").write_text(json.dumps(document | report))
        return tmp_path

    return change


def test_a_strategy_has_its_best_threshold(study):
    rows = json.loads((study / "report.json").read_text())["settings"][0]["rows"]
    shown = {row["strategy"]: row["arm"] for row in rows if row["shown"]}
    for strategy in ("norm", "none", "agc(exclude=[head])"):
        clipper = clipbench.Clipper.from_report(study, MODEL, strategy, measure=True)
        assert clipper.arm.arm == shown[strategy] and clipper.measure
    assert clipbench.Clipper.from_report(study / "report.json", MODEL, "norm@1.0").arm.arm == "norm@1.0"


def test_the_recommended_arm_is_taken(changed):
    folder = changed({"answer": {"verdict": "clipping helps", "arm": "norm@0.5"}})
    clipper = clipbench.Clipper.from_report(folder, MODEL, exclude=["head"])
    assert clipper.arm.arm == "norm(exclude=[head])@0.5"


def test_a_tuned_learning_rate_is_no_part_of_the_rule(study, changed):
    rows = json.loads((study / "report.json").read_text())["settings"][0]["rows"]
    tuned = [row | {"arm": f"{row['arm']} (lr=0.1)", "tuning": "lr=0.1"} for row in rows]
    folder = changed({"rows": tuned, "answer": {"verdict": "clipping helps", "arm": "norm@1.0 (lr=0.1)"}})
    assert clipbench.Clipper.from_report(folder, MODEL).arm.arm == "norm@1.0"
    assert clipbench.Clipper.from_report(folder, MODEL, "norm@0.5").arm.arm == "norm@0.5"


def test_a_report_without_an_answer_is_refused_with_what_there_is(study, changed):
    with pytest.raises(InputError, match=r"recommends no arm: no arm beats.*Name a strategy.*none, agc"):
        clipbench.Clipper.from_report(study, MODEL)
    with pytest.raises(InputError, match=r"no strategy 'nrom'. Did you mean `norm`\?"):
        clipbench.Clipper.from_report(study, MODEL, "nrom")
    with pytest.raises(InputError, match="compares nothing yet"):
        clipbench.Clipper.from_report(changed(settings=[]), MODEL)


def test_of_several_settings_one_must_be_chosen(changed):
    answer = {"verdict": "clipping helps", "arm": "norm@0.5"}
    folder = changed({"label": "lr=0.1", "answer": answer}, {"label": "lr=0.5", "answer": answer | {"arm": "norm@1.0"}})
    with pytest.raises(InputError, match=r"2 settings: lr=0\.1; lr=0\.5\. Write setting='lr=0\.1'"):
        clipbench.Clipper.from_report(folder, MODEL)
    with pytest.raises(InputError, match=r"no setting 'lr=0\.3'. Did you mean"):
        clipbench.Clipper.from_report(folder, MODEL, setting="lr=0.3")
    assert clipbench.Clipper.from_report(folder, MODEL, setting="lr=0.5").arm.arm == "norm@1.0"


def test_without_a_chosen_threshold_the_arms_are_listed(study, changed):
    rows = json.loads((study / "report.json").read_text())["settings"][0]["rows"]
    with pytest.raises(
        InputError, match=r"no threshold of norm is chosen.*norm@0\.5, norm@1\.0\. Write strategy='norm"
    ):
        clipbench.Clipper.from_report(changed({"rows": [row | {"shown": True} for row in rows]}), MODEL, "norm")


@pytest.mark.parametrize("text", [None, "no json", "[]", '{"settings": 3'])
def test_what_is_no_report_is_refused(text, tmp_path):
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=r"report.json: (there is no such report|is no report of clipbench)"):
        clipbench.Clipper.from_report(tmp_path, MODEL)


def test_a_report_is_read_without_pandas(study):
    code = (
        "import sys, torch, clipbench\n"
        f"print(clipbench.Clipper.from_report({str(study)!r}, torch.nn.Linear(2, 2), 'none'))\n"
        "print([name for name in ('mlflow', 'optuna', 'pandas', 'pyarrow', 'scipy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Clipper(none)", "[]"]
