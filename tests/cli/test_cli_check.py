"""The commands that need only the YAML: check, list, schema, init; and a `--help` that costs nothing."""

import importlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from clipbench.cli import PANELS, app
from clipbench.cli.catalogue import KINDS
from clipbench.config import load, load_experiment
from clipbench.config.components import signature
from clipbench.config.json_schema import experiment_schema
from clipbench.plugins import registry
from tests.cli_helpers import write

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "tests" / "quickstart.yaml"  # not the one that ships, which may be tuned
HEAVY = {
    "torch",
    "mlflow",
    "pandas",
    "optuna",
    "numpy",
    "scipy",
    "sklearn",
    "matplotlib",
    "pydantic",
    "yaml",
    "rich",
}


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def shell(*arguments: object, **options):
    command = [sys.executable, "-c", "from clipbench.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


# --help


def test_help_imports_nothing_heavy():
    code = (
        "import atexit, sys\nsys.argv = ['clipbench', '--help']\nfrom clipbench.cli import main\n"
        "atexit.register(lambda: print(sorted(sys.modules)))\nmain()"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(yaml.safe_load(shown.splitlines()[-1]))
    assert "clipbench.cli" in loaded
    assert not loaded & HEAVY


@pytest.mark.slow
def test_help_takes_less_than_three_tenths_of_a_second():
    def seconds() -> float:
        start = time.perf_counter()
        assert shell("--help").returncode == 0
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.3


def test_help_names_every_command_in_a_panel():
    shown = run("--help").stdout
    assert {command.rich_help_panel for command in app.registered_commands} <= set(PANELS)
    for command in app.registered_commands:
        assert f"\n  {command.name or command.callback.__name__}" in shown


def test_version_is_the_packages():
    assert run("--version").stdout == "clipbench 0.1.0\n"


def test_unknown_command_names_a_near_one():
    result = run("chek")
    assert result.exit_code == 2
    assert "Did you mean 'check'" in result.stderr


def test_unknown_option_is_an_input_mistake():
    assert run("check", QUICKSTART, "--sed", "3").exit_code == 2


# check


def test_check_says_what_an_experiment_amounts_to():
    result = run("check", QUICKSTART, "--seeds", 3, "--set", "clip=[none, {name: norm, threshold: [0, 1]}]")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "quickstart: 3 arms x 3 seeds = 9 trials",
        "  data       digits",
        "  model      mlp",
        "  optimizer  sgd(lr=0.1, momentum=0.9)",
        "  train      20 epochs, batch size 64, default loss",
        "  arm        none",
        "  arm        norm at 0, 1",
        "  smallest p with 3 seeds and 1 comparison, the smallest p after Holm is 0.25; p < 0.05 takes 6 seeds",
        "  note       clip[1].threshold: threshold 0: all gradients become zero.",
    ]


@pytest.mark.parametrize(
    ("claims", "seeds", "said"),
    [
        ([""] * 10, 8, "10 claims: the smallest p after Holm is 0.0781, so that no > or < can be decided with 8 seeds "
         "if all are tested; that takes 9 seeds, or a `family` for each question, or at most 6 claims"),
        ([""] * 4 + ["size"] * 2, 8, "6 claims, at most 4 in a family: the smallest p after Holm is 0.0312"),
        ([""], 3, "1 claim: the smallest p after Holm is 0.25, so that no > or < can be decided with 3 seeds if all "
         "are tested; that takes 6 seeds"),
    ],
)  # fmt: skip
def test_check_says_whether_claims_can_be_decided(tmp_path, claims, seeds, said):
    content = yaml.safe_load(QUICKSTART.read_text("utf-8")) | {"seeds": seeds}
    content["claims"] = [{"says": "more", "expect": "norm > none", "family": family} for family in claims]
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    assert f"  claims     {said}" in run("check", path, "--no-data").stdout.splitlines()
    assert json.loads(run("check", path, "--no-data", "--json").stdout)["experiments"][0]["claims_sentence"] == said


def test_check_says_how_trials_are_trained_where_that_is_unusual(tmp_path):
    path = tmp_path / "bowl.yaml"
    path.write_text(
        "model: quadratic\noptimizer: sgd\nclip: none\n"
        "train: {loss: output, steps: 10, dtype: float64, l1: [0, 0.1], noise: [null, cauchy, {name: levy, scale: 2}],"
        " schedule: {name: cosine, warmup: 3}, early_stop: {measure: train/loss, patience: 2}}\n"
    )
    [said] = [line for line in run("check", path).stdout.splitlines() if line.startswith("  train ")]
    usual = "schedule cosine(warmup=3)", "early stop by train/loss"
    assert said.removeprefix("  train      ").split("; ") == [
        f"10 steps, output, float64, {usual[0]}, {usual[1]}",
        f"10 steps, output, float64, {usual[0]}, noise cauchy, {usual[1]}",
        f"10 steps, output, float64, {usual[0]}, noise levy(scale=2.0), {usual[1]}",
        f"10 steps, output, float64, {usual[0]}, l1 0.1, {usual[1]}",
        "and 2 more",
    ]


def test_check_of_several_files_says_all_that_is_wrong(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}/\nclip: [nrom]\n")
    result = run("check", tmp_path / "a.yaml", QUICKSTART, tmp_path / "b.yaml")
    assert result.exit_code == 2
    assert result.stderr.count("Did you mean `norm`?") == 2
    assert "quickstart: " in result.stdout


def test_check_quietly_says_nothing_of_a_good_file():
    result = run("check", QUICKSTART, "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


SWEEP = """\
data: wine
model: linear
optimizer: {name: sgd, lr: [0.1, 0.01]}
clip: [none, {name: norm, threshold: [null, 0, 1]}, {name: value, threshold: {linear: [0.1, 1]}}]
sweep: {trials: 20, seeds: 1, sampler: gp, search: {optimizer.lr: {log: [0.01, 1]}, clip.p: [1, inf]}}
"""


def test_check_says_what_a_sweep_would_search(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    lines = run("check", path).stdout.splitlines()
    assert lines[
        lines.index("  sweep      20 points per arm on 1 seed, sampler gp; the best confirmed on 8 fresh seeds") + 1 :
    ] == [
        "  search     none: lr 0.01 to 1 (log)",
        "  search     norm: threshold 0.01 to 100 (log), lr 0.01 to 1 (log), clip.p of 1.0, inf",
        "  search     value: threshold 0.1 to 1, lr 0.01 to 1 (log)",
        "  note       norm@off, norm@0.0: outside the search range and ignored by `sweep`.",
    ]


def test_check_as_json_says_what_a_sweep_would_search(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    [document] = json.loads(run("check", path, "--json").stdout)["experiments"]
    sweep = document["sweep"]
    assert (sweep["trials"], sweep["seeds"], sweep["left_out"]) == (20, 1, ["norm@off", "norm@0.0"])
    assert [each["path"] for each in sweep["searched"]] == ["lr", "threshold", "lr", "clip.p", "threshold", "lr"]
    assert sweep["searched"][3]["choices"] == [1.0, "inf"]
    path.write_text(SWEEP.partition("sweep:")[0])
    assert json.loads(run("check", path, "--json").stdout)["experiments"][0]["sweep"] is None


def test_check_remarks_on_a_sweep_that_cannot_be_and_goes_on(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.partition("clip:")[0] + "clip: none\nsweep: {}\n")
    result = run("check", path)
    assert result.exit_code == 0
    assert "  note       sweep: clip: there is nothing to search" in result.stdout


def test_check_as_json_is_one_document(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(QUICKSTART.read_text().replace("epochs: 20", "epochs: x"))
    result = run("check", QUICKSTART, bad, "--json")
    assert result.exit_code == 2
    good, broken = json.loads(result.stdout)["experiments"]
    assert good["ok"] and good["trials"] == len(good["arms"]) * 8
    assert not broken["ok"]
    assert broken["problems"] == [
        {
            "file": str(bad),
            "line": 7,
            "column": 17,
            "key": "train.epochs",
            "text": "expected an integer, got 'x'.",
            "remedy": None,
        }
    ]


@pytest.mark.parametrize("name", ["with space.yaml", "quote'\".yaml", "new\nline.yaml", "ünïcode.yaml", "-dash.yaml"])
def test_any_file_name_is_taken(name, tmp_path):
    path = tmp_path / name
    path.write_text(QUICKSTART.read_text())
    assert run("check", path).exit_code == 0
    path.write_text("clip: [nrom]\n")
    assert "Did you mean `norm`?" in run("check", path).stderr


EVIL = """
import os
from pathlib import Path

Path(__file__).with_name("ran").touch()
os._exit(0)
"""
EVIL_YAML = {
    "data": {"name": "./evil.py:data", "n": [1, 2]},
    "model": {"name": "./evil.py:net", "width": 3},
    "optimizer": {"name": "./evil.py:opt", "lr": [0.1]},
    "train": {"epochs": 1, "loss": "./evil.py:loss", "metrics": ["./evil.py:m"], "schedule": "./evil.py:falls"},
    "clip": ["none", {"name": "norm", "threshold": 1.0}, {"name": "./evil.py:rule", "threshold": [1, 2]}],
    "seeds": 2,
    "sweep": {"trials": 3},
}


@pytest.mark.parametrize("how", ["components", "script", "a mistake", "a module of Python"])
def test_a_check_without_imports_runs_nothing_of_the_users(how, tmp_path):
    (tmp_path / "evil.py").write_text(EVIL)
    written = dict(EVIL_YAML)
    if how == "script":
        written = {"train": {"script": "./evil.py", "lr": [0.1, 0.2]}, "clip": ["none"], "seeds": 2}
    elif how == "a mistake":
        written["report"] = {"metric": "test/los"}
    elif how == "a module of Python":
        written["model"] = {"name": "os:system", "command": f"touch {tmp_path / 'ran'}"}
    path = tmp_path / "evil.yaml"
    path.write_text(yaml.safe_dump(written))
    said = shell("check", "--no-import", path)
    assert not (tmp_path / "ran").exists() and "Traceback" not in said.stderr
    assert said.returncode == (2 if how.startswith("a ") else 0), said.stderr
    expected = {"components": "= 16 trials", "script": "= 4 trials", "a mistake": "Did you mean `test/loss`?"}
    assert expected.get(how, "os belongs to Python itself") in said.stdout + said.stderr


def test_name_that_is_no_unicode_is_printed_escaped(tmp_path):
    result = shell("check", os.fsdecode(os.fsencode(tmp_path) + b"/\xff.yaml"))
    assert result.returncode == 2
    assert "\\udcff.yaml: there is no such file." in result.stderr
    assert "Traceback" not in result.stderr


def test_closed_pipe_shows_no_traceback():
    command = f"{sys.executable} -c 'from clipbench.cli import main; main()' list | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert result.stdout.startswith("strategies")
    assert "Traceback" not in result.stderr


# list


@pytest.mark.parametrize("kind", KINDS)
def test_list_has_an_entry_for_every_plugin_within_80_columns(kind):
    lines = run("list", kind).stdout.splitlines()
    entries = [line.split()[0] for line in lines if re.match(r"  \S", line)]
    assert set(entries) >= set(registry.catalogue(KINDS[kind][0]))
    assert max(map(len, lines)) <= 80


def test_list_shows_formula_and_options():
    shown = run("list", "strategies").stdout
    assert re.search(r"^  norm +g \* min\(1, c / \(n \+ 1e-6\)\)", shown, re.MULTILINE)
    assert "threshold, p=2.0, per=model" in shown


def test_list_groups_rules_by_family_with_reference_range_and_common_options():
    text = run("list", "strategies").stdout
    shown = " ".join(text.split())
    for file in ("norms", "elementwise", "skipping", "adaptive", "weights"):
        sentence = importlib.import_module(f"clipbench.plugins.strategies.{file}").__doc__.split(".")[0]
        assert " ".join(sentence.split()) in shown
    for name, rule in registry.catalogue("strategy").items():
        entry = text.partition(f"\n  {name} ")[2].partition("\n\n")[0]
        said = " ".join(entry.split())
        assert rule.summary in said, name
        assert all(option in said for option in rule.options), name
        assert ("search" in said) == ("threshold" in rule.options), name
    assert shown.index("norm ") < shown.index("zclip ")
    assert "exclude a list of strings; default []" in shown


def test_list_of_everything_names_every_kind():
    shown = run("list").stdout
    assert all(f"{kind}" in shown for kind in KINDS)


def test_list_of_one_shows_its_reference_and_what_options_take():
    shown = run("list", "strategy", "norm").stdout
    assert "Pascanu" in shown
    assert "per                 one of model, tensor, unit, column; default model" in shown
    assert "search 0.01 to 100; off at inf" in shown
    shown = run("list", "strategies", "value").stdout
    assert "lower               a number or null, at most 0; default null" in shown
    assert "each replace one bound" in shown


@pytest.mark.parametrize("kind", KINDS)
def test_list_of_any_one_fits_80_columns(kind):
    for name in registry.catalogue(KINDS[kind][0]):
        lines = run("list", kind, name).stdout.splitlines()
        assert lines[0] == name and max(map(len, lines)) <= 80, name


def test_list_of_rules_as_json_says_where_they_look_and_what_they_are_from():
    found = json.loads(run("list", "strategies", "agc", "--json").stdout)["strategies"]
    assert [rule["name"] for rule in found] == ["agc"]
    assert found[0]["looks_at"] == "unit" and found[0]["search"] == [0.001, 1.0] and found[0]["off_at"] == "inf"
    assert "Brock" in found[0]["reference"] and found[0]["family"].startswith("Rules that scale by a norm")


@pytest.mark.parametrize(
    ("rule", "option", "value", "said"),
    [
        ("autoclip", "window", 0, "must be greater than or equal to 1, got 0"),
        ("autoclip", "window", 10**9, "must be less than or equal to 100000, got 1000000000"),
        ("zclip", "alpha", 1.0, "must be less than 1, got 1.0"),
        ("adagc", "max_norm", -1.0, "must be greater than 0, got -1.0"),
        ("skip_sigma", "patience", -1, "must be greater than or equal to 0, got -1"),
        ("norm", "p", 0, "must be greater than 0, got 0"),
        ("norm", "exclude", None, "expected a list of strings, got null. Leave it out."),
    ],
)
def test_an_option_of_a_rule_has_bounds(tmp_path, rule, option, value, said):
    path = write(tmp_path, clip={"name": rule, "threshold": 0.5, option: value})
    result = run("check", path)
    assert result.exit_code == 2
    assert said in result.stderr


def test_list_as_json_holds_every_option():
    found = json.loads(run("list", "models", "--json").stdout)
    assert {
        "name": "hidden",
        "takes": "a list of integers",
        "required": False,
        "default": [128],
    } in next(model["options"] for model in found["models"] if model["name"] == "mlp")


@pytest.mark.parametrize("words", [("strategies", "nrom"), ("strategie",)])
def test_list_of_an_unknown_name_names_a_near_one(words):
    result = run("list", *words)
    assert result.exit_code == 2
    assert "Did you mean `" in result.stderr


# init


def test_init_writes_an_experiment_that_passes_check(tmp_path):
    path = tmp_path / "new folder" / "mine.yaml"
    assert run("init", path).exit_code == 0
    experiment = load(path)
    assert experiment.name == "mine"
    assert experiment.notes == ()
    assert run("check", path).exit_code == 0


def test_what_init_writes_as_a_comment_can_be_said(tmp_path):
    path = tmp_path / "mine.yaml"
    run("init", path)
    path.write_text(re.sub(r"^( *)# (sweep|loss|target): ", r"\1\2: ", path.read_text(), flags=re.MULTILINE))
    experiment = load(path)
    assert experiment.sweep.search
    assert experiment.training[0].target
    assert experiment.training[0].loss.name == "cross_entropy"


def test_init_does_not_write_over_a_file_unless_forced(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    result = run("init", path)
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert path.read_text() == "precious"
    assert run("init", path, "--force").exit_code == 0
    assert path.read_text() != "precious"


def test_init_says_why_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    result = run("init", tmp_path / "file" / "mine.yaml")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


# schema


def test_schema_names_every_component_and_option():
    definitions = experiment_schema()["$defs"]
    for kind in registry.HOMES:
        described = {
            choice["properties"]["name"].get("const"): choice["properties"]
            for choice in definitions[kind]["anyOf"]
            if "properties" in choice
        }
        for name, plugin in registry.catalogue(kind).items():
            assert {slot.partition(".")[0] for slot in signature(plugin)} <= set(described[name])


def test_schema_is_strict_json_with_every_section():
    document = json.loads(run("schema").stdout)
    assert set(document["properties"]) == set(load_experiment.KEYS)
    assert document["additionalProperties"] is False


def test_schema_knows_the_paths_that_a_sweep_searches():
    search = experiment_schema()["$defs"]["Sweep"]["properties"]["search"]
    [pattern] = search["patternProperties"]
    assert all(
        re.search(pattern, path) for path in ("optimizer.lr", "optimizer[1].momentum", "clip[12].window", "train.lr")
    )
    assert not any(re.search(pattern, path) for path in ("train", "lr", "optimizer", "xoptimizer.lr", "data[0].limit"))
    assert search["additionalProperties"] is False


def test_a_mistake_is_told_before_torch_is_imported_to_who_reads_through_a_pipe(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("data: digits\nmodel: mlpp\noptimizer: {name: sgd, lr: 0.1}\nclip: none\n")
    (tmp_path / "torch.py").write_text("import time\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "clipbench", "run", str(path), "--results", str(tmp_path / "r")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30, check=False)
    assert done.returncode == 2
    assert "unknown model 'mlpp'" in done.stderr
    assert not (tmp_path / "r").exists()
