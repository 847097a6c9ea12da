"""`clipbench export`: the answer of real studies as code, and what is said where there is none."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.cli_helpers import invoke, train, write

ARMS = [
    "none",
    {"name": "norm", "threshold": [0.02, 0.1]},
    {"name": "agc", "threshold": 0.01, "exclude": ["head"]},
    {"name": "skip", "threshold": 100.0},
]
STUDY = {
    "data": {"name": "digits", "limit": 600},
    "model": {"name": "mlp", "hidden": [16]},
    "train": {"epochs": 4, "batch_size": 32},
    "clip": ARMS,
    "seeds": 8,
}


def sgd(*rates):
    return {"name": "sgd", "lr": list(rates) if len(rates) > 1 else rates[0], "momentum": 0.9}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A study in which clipping helps, one in which it does not, one of both, and one without validation data."""
    folder = tmp_path_factory.mktemp("studies")
    unvalidated = STUDY["data"] | {"split": {"val": 0.0}}
    for name, changes in {
        "helps": {"optimizer": sgd(3.0)},
        "same": {"optimizer": sgd(0.1)},
        "both": {"optimizer": sgd(0.1, 3.0)},
        "unchosen": {"optimizer": sgd(3.0), "data": unvalidated, "seeds": 4},
    }.items():
        train(write(folder, f"{name}.yaml", **STUDY | {"name": name} | changes), folder / "results", "-q")
    return folder / "results"


def export(results, study, *arguments):
    return invoke("export", study, "--results", results, *arguments)


def code(results, study, *arguments):
    said = export(results, study, *arguments)
    assert said.exit_code == 0, said.stderr
    compile(said.stdout, "printed.py", "exec")
    return said.stdout


def test_the_chosen_threshold_is_clipped_by_the_printed_code(results):
    printed = code(results, "helps")
    assert printed.startswith("# helps: norm@0.02; verdict: clipping helps\nimport torch\n")
    model = nn.Linear(4, 2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    exec(printed, {"model": model, "optimizer": optimizer, "loss": model(torch.ones(3, 4)).square().sum()})
    moved = [old - new for old, new in zip(before, model.parameters(), strict=True)]
    assert nn.utils.get_total_norm(moved).item() == pytest.approx(0.02, rel=1e-3)


def test_a_study_is_a_name_a_results_folder_or_a_yaml(results, monkeypatch):
    expected = code(results, "helps")
    assert code("nowhere", results / "helps") == code(results, results.parent / "helps.yaml") == expected
    monkeypatch.chdir(results / "helps")
    assert code("nowhere", ".") == expected


def test_another_strategy_or_arm_can_be_named(results):
    assert "# helps: agc(exclude=[head])@0.01; verdict: better\n" in code(results, "helps", "--strategy", "agc")
    assert 'Clipper(model, "agc(exclude=[head])@0.01")' in code(results, "helps", "--strategy", "agc(exclude=[head])")
    said = export(results, "helps", "--strategy", "norm@0.1", "--to", "transformers")
    assert "max_grad_norm=0.1" in said.stdout
    assert said.stderr == "note: the answer of the report is another: Clip by norm@0.02.\n"


def test_without_a_benefit_nothing_is_decided_and_the_baseline_stays(results):
    said = export(results, "same")
    assert said.stdout == "# same: none; verdict: no benefit shown\nloss.backward()\noptimizer.step()\n"
    assert "note: Not decided: no strategy is shown to be better than none, nor to make no difference" in said.stderr
    assert "prints the lines of a strategy all the same: agc(exclude=[head]), norm, skip." in said.stderr
    assert "max_grad_norm=0.0" in code(results, "same", "--to", "transformers")
    assert "clip_grad_norm_" in code(results, "same", "--strategy", "norm")


def test_of_several_settings_one_must_be_named(results):
    assert "# both, lr=3: norm@0.02; verdict: clipping helps" in code(results, "both", "--setting", "lr=3")
    assert "# both, lr=0.1: none; verdict: no benefit shown" in code(results, "both", "--setting", "lr=0.1")


def test_json_has_every_library_or_the_one_that_is_asked_for(results):
    found = json.loads(code(results, "helps", "--json"))
    assert found | {"code": None, "why_not": None, "notes": None} == {
        "study": "helps", "setting": "", "arm": "norm@0.02", "strategy": "norm", "threshold": 0.02, "tuning": "",
        "recommended": True, "verdict": "clipping helps", "code": None, "why_not": None, "notes": None,
    }  # fmt: skip
    assert list(found["code"]) == ["torch", "clipper", "lightning", "transformers", "optax"] and not found["why_not"]
    skip = json.loads(code(results, "helps", "--json", "--strategy", "skip", "--to", "optax"))
    assert skip["code"] == {"optax": None} and "`--to clipper`" in skip["why_not"]["optax"]
    report = json.loads((results / "helps/report.json").read_text("utf-8"))["settings"][0]["use"]
    assert report == {"sentence": "Clip by norm@0.02.", "code": found["code"]}


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["nothing"], 2, "nothing: neither a file nor an experiment in"),
        (["{results}/../untrained.yaml"], 1, "untrained: nothing has been trained yet. Run `clipbench run"),
        (["both"], 2, "both: there are 2 settings: lr=0.1; lr=3. Name one: `--setting 'lr=0.1'`."),
        (["both", "--setting", "lr=9"], 2, "no setting is called 'lr=9'. Known: lr=0.1; lr=3."),
        (["unchosen", "--strategy", "norm"], 2, "there is no validation data that chooses one: norm@0.02, norm@0.1."),
        (["helps", "--strategy", "nrom"], 2, "--strategy nrom: no such strategy was trained. Did you mean `norm`?"),
        (["helps", "--strategy", "norm@0.2"], 2, "no such strategy was trained. Did you mean `norm@0.02`?"),
        (["helps", "--to", "jax"], 2, "--to: there is no code for 'jax'. Known: torch, clipper, lightning,"),
        (["helps", "--to", "troch"], 2, "Did you mean `torch`?"),
        (
            ["helps", "--to", "optax", "--strategy", "skip"],
            2,
            "--to optax: Optax has nothing that does what skip@100.0",
        ),
        (["{results}/renamed"], 2, "has the results of an experiment that is called same. Rename the folder to same."),
    ],
)
def test_what_has_no_code_is_said(results, arguments, status, expected):
    write(results.parent, "untrained.yaml", **STUDY | {"name": "untrained"})
    shutil.copytree(results / "same", results / "renamed", dirs_exist_ok=True)
    said = export(results, *(argument.format(results=results) for argument in arguments))
    assert said.exit_code == status, said.stderr
    assert expected in " ".join(said.stderr.split()) and said.stdout == ""


def test_too_few_seeds_choose_nothing_but_a_strategy_can_be_named(tmp_path):
    few = STUDY | {"name": "few", "optimizer": sgd(3.0), "clip": ARMS[:3], "seeds": 3}
    train(write(tmp_path, **few), tmp_path / "results", "-q")
    said = export(tmp_path / "results", "few")
    assert said.exit_code == 2
    assert "few: Nothing is chosen, because of the verdict: too few seeds to tell. Train more" in said.stderr
    assert "Add `--strategy NAME`: none, agc(exclude=[head]), norm." in said.stderr
    assert "# few: norm@" in code(tmp_path / "results", "few", "--strategy", "norm")


def test_it_imports_no_torch_and_writes_no_report(results):
    before = files(results)
    script = (
        "import sys\nfrom clipbench.cli import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    arguments = [sys.executable, "-c", script, "export", "helps", "--results", str(results)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("optimizer.step()\nFalse False\n")
    assert files(results) == before


def files(results):
    """When each file was written; but for what is known of plans, which is kept by every command."""
    found = (path for path in results.rglob("*") if path.is_file() and path.parent.name != ".subjects")
    return {path: path.stat().st_mtime_ns for path in found}
