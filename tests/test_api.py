"""The Python API: it does what the commands do, returns data frames, and shows itself in a notebook."""

import dataclasses
import html
import inspect
import json
import subprocess
import sys
import typing

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import clipbench
from clipbench import api
from clipbench.cli import app
from clipbench.commands.result import MOST_SETTINGS, Result
from tests.cli_helpers import environment, invoke, write
from tests.scripts.helpers import write_script

CLAIM = {"says": "clipping <b>hurts</b>", "expect": "none > value", "metric": "test/accuracy"}


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run that several tests look at: its file, its results folder, its result."""
    root = tmp_path_factory.mktemp("finished")
    path, results = write(root, claims=[CLAIM]), root / "results"
    result = clipbench.run(path, set={"train.epochs": np.int64(3)}, results=results, mlflow=False, quiet=True)
    return path, results, result


# Data frames


def test_frames_have_the_rows_and_the_names_of_the_files(finished):
    _, results, result = finished
    folder = results / "small"
    for name in ("trials", "epochs", "steps"):
        written = pd.read_parquet(folder / {"trials": "records"}.get(name, name))
        frame = getattr(result, name)
        assert set(frame) == set(written) | {"arm", "seed"} and len(frame) == len(written), name
        assert set(frame["arm"]) == {"none", "norm@0.5", "norm@1.0", "value@0.01"} and set(frame["seed"]) == {0, 1, 2}
    assert set(result.trials["train.epochs"]) == {3} and result.epochs["epoch"].max() == 3
    written = pd.read_csv(folder / "table.csv")
    assert list(result.arms) == list(written) and list(result.arms["arm"]) == list(written["arm"])
    assert result.trained == 12 and result.failed == () and result.points.empty


def test_the_table_is_the_comparison_of_the_report(finished):
    _, results, result = finished
    document = json.loads((results / "small" / "report.json").read_text())["settings"][0]
    assert list(result.table["arm"]) == document["main"] and result.headlines == (document["headline"],)
    assert {"mean", "p_holm", "verdict", "clip/fired_share"} <= set(result.table)
    assert set(result.table) <= set(result.arms)


def test_claims_have_their_verdicts_and_their_evidence(finished):
    (row,) = finished[2].claims.to_dict("records")
    assert (row["expect"], row["metric"], row["pairs"]) == ("none > value", "test/accuracy", 3)
    assert row["verdict"] in ("supported", "refuted", "inconclusive") and "seeds" in row["evidence"]


def test_an_experiment_without_claims_has_an_empty_frame_of_them(finished):
    path, results, _ = finished
    options = {"train.epochs": 3, "claims": []}
    claims = clipbench.report(path, set=options, results=results).claims
    assert claims.empty and {"says", "verdict"} <= set(claims)


def test_a_second_run_trains_nothing_and_a_report_says_the_same(finished):
    path, results, first = finished
    options = {"set": {"train.epochs": 3}, "results": results}
    again = clipbench.run(str(path), mlflow=False, quiet=True, **options)
    assert again.trained == 0
    for other in (again, clipbench.report(path, **options)):
        pd.testing.assert_frame_equal(other.arms, first.arms)
        assert repr(other) == repr(first)


def test_several_reports_are_told_apart_by_the_name_of_their_experiment(finished, tmp_path):
    _, results, first = finished
    other = write(tmp_path, name="other", seeds=1)
    clipbench.run(other, results=results, mlflow=False, quiet=True)
    both = clipbench.report("other", "small", results=results)
    assert both.points.empty and both.names == ("other", "small") and (results / "report.html").is_file()
    for frame in (both.table, both.arms, both.trials, both.epochs, both.steps):
        assert frame.columns[0] == "experiment" and set(frame["experiment"]) == {"other", "small"}
    assert set(both.figures) >= {f"small/{name}" for name in first.figures}
    assert len(both.trials) == 4 + 12


def test_a_search_is_a_function_too(tmp_path):
    path = write(tmp_path, clip=["none", {"name": "norm", "threshold": [0.5, 1.0]}], train={"epochs": 1})
    sweep = {"seeds": 1, "batch": 2, "confirm_seeds": 2}
    result = clipbench.sweep(
        path, trials=2, set={"sweep": sweep}, results=tmp_path / "r", workers=1, mlflow=False, quiet=True
    )
    assert list(result.table["strategy"].sort_values()) == ["none", "norm"] and set(result.trials["seed"]) == {3, 4}
    written = pd.read_csv(tmp_path / "r" / "small" / "search.csv")
    assert list(result.points) == list(written) and list(result.points["point"]) == list(written["point"])
    assert "The search tried 2 thresholds" in repr(result) and "The search tried 2 thresholds" in result._repr_html_()
    (history,) = json.loads((tmp_path / "r" / "small" / "runs.json").read_text())[:1]
    assert history["command"].startswith(f"clipbench.sweep({str(path)!r}, trials=2, set=")


def test_the_run_is_mirrored_to_mlflow_unless_told_otherwise(tmp_path):
    path = write(tmp_path, seeds=1, clip=["none"], train={"epochs": 1})
    clipbench.run(path, set={"optimizer.lr": np.float64(0.05)}, results=tmp_path / "r", quiet=True)
    (history,) = json.loads((tmp_path / "r" / "small" / "runs.json").read_text())
    assert "set={'optimizer.lr': 0.05}" in history["command"]
    pushed = invoke("push", "small", "--results", tmp_path / "r")
    assert pushed.stdout.startswith("small: 0 trials"), "all were sent"


# In a notebook


def test_a_result_shows_its_headline_and_its_table(finished):
    result = finished[2]
    for shown in (repr(result), html.unescape(result._repr_html_())):
        assert result.headlines[0] in shown and all(arm in shown for arm in ("none", "norm@", "value@0.01"))
        assert len(shown) < 10_000
    assert "<table" in result._repr_html_() and "report.html" in result._repr_html_() and "<table" not in repr(result)


def test_text_of_a_user_is_shown_as_text(finished):
    (whole,) = finished[2]._finished
    setting = dataclasses.replace(whole.report.settings[0], words="<script>alert(1)</script>")
    report = dataclasses.replace(whole.report, name="<b>", settings=(setting,))
    page = Result([dataclasses.replace(whole, report=report)])._repr_html_()
    assert "<script" not in page and "&lt;script&gt;" in page and "<h4>&lt;b&gt;</h4>" in page


def test_many_settings_are_counted_instead_of_shown(finished):
    (whole,) = finished[2]._finished
    many = dataclasses.replace(whole.report, settings=whole.report.settings * (MOST_SETTINGS + 3))
    result = Result([dataclasses.replace(whole, report=many)])
    assert result._repr_html_().count("<table") == MOST_SETTINGS and "3 more settings" in result._repr_html_()
    assert len(result.table) == (MOST_SETTINGS + 3) * len(finished[2].table) and "setting" in result.table


def test_figures_draw_themselves_and_can_be_saved(finished, tmp_path):
    _, results, result = finished
    assert set(result.figures) == {path.stem for path in (results / "small" / "figures").glob("*.svg")}
    figure = result.figure("thresholds")
    assert "<svg" in figure._repr_svg_() and repr(figure) == "<SvgFigure thresholds>"
    figure.save(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text("utf-8") == figure.svg


SCRIPT = """
import asyncio
import threading

import clipbench

def trained(seeds):
    return clipbench.run("small.yaml", seeds=seeds, mlflow=False).trained

async def cell():
    return trained(2)

found = [trained(1), asyncio.run(cell())]
thread = threading.Thread(target=lambda: found.append(trained(3)))
thread.start()
thread.join()
found.append(clipbench.run("script.yaml", mlflow=False).trained)  # whose trials are processes too
print("trained", found)
"""


def test_a_plain_script_an_event_loop_and_a_thread_may_call_it(tmp_path):
    """Worker processes must not run the script again that started them."""
    write(tmp_path, clip=["none", {"name": "norm", "threshold": 1.0}], model="mine:net")
    write_script(tmp_path)
    (tmp_path / "plain.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "plain.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "trained [2, 2, 2, 1]\n", done.stderr
    assert "Training 2 trials" in done.stderr.splitlines() and "Traceback" not in done.stderr


# Mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": "x"}, "seeds: expected an integer of at least 1, got 'x'"),
        ({"seeds": 0}, "seeds: expected an integer of at least 1, got 0"),
        ({"seeds": True}, "seeds: expected an integer of at least 1, got True"),
        ({"workers": 0}, "workers: expected an integer from 1 to 1024, got 0"),
        ({"workers": "many"}, "workers: expected an integer from 1 to 1024, got 'many'"),
        ({"device": "tpu"}, "device: expected one of auto, cpu, cuda, mps, got 'tpu'"),
        ({"set": ["train.epochs=2"]}, "set: expected a mapping, got ['train.epochs=2']"),
        ({"set": {"train.epohcs": 3}}, "epohcs"),
        ({"set": {"train.epochs": object()}}, "--set train.epochs: cannot be <object"),
        ({"tracking_uri": "ftp://me:hunter2@host"}, "unknown kind of tracking URI `ftp`"),
    ],
)
def test_a_wrong_option_is_an_input_error_and_starts_nothing(finished, tmp_path, options, words):
    with pytest.raises(clipbench.InputError) as caught:
        clipbench.run(finished[0], results=tmp_path / "r", **options)
    assert words in str(caught.value) and "hunter2" not in str(caught.value)
    assert not (tmp_path / "r").exists()


def test_what_is_not_there_is_said(finished, tmp_path):
    with pytest.raises(clipbench.InputError, match=r"nope\.yaml: there is no such file"):
        clipbench.run(tmp_path / "nope.yaml")
    with pytest.raises(clipbench.InputError, match="expected at least one experiment, got none"):
        clipbench.report()
    with pytest.raises(clipbench.ClipbenchError, match="nothing has been trained yet"):
        clipbench.report(finished[0], results=tmp_path / "r")
    with pytest.raises(clipbench.InputError, match="Did you mean `thresholds`"):
        finished[2].figure("treshold")


@pytest.mark.parametrize(
    "value", [1e-5, float("inf"), None, True, "yes", "a: b", [0.1, 1e-9], {"name": "norm", "threshold": [1, 2.5]}, "ü"]
)
def test_any_value_of_python_takes_the_place_of_one_of_the_yaml(value):
    from clipbench.config.overrides import override
    from clipbench.config.yaml_nodes import parse
    from clipbench.errors import Findings

    path, _, words = override("a.b", value).partition("=")
    findings = Findings()
    node = parse(words, "here", findings, key=path, lines=False)
    assert not findings.problems and _values(node) == value


def _values(node):
    if isinstance(node.value, dict):
        return {key: _values(item) for key, item in node.value.items()}
    return [_values(item) for item in node.value] if isinstance(node.value, list) else node.value


# What users and their tools see


def test_functions_take_the_options_of_the_commands():
    of_commands = {"as_json", "dry_run", "layout", "png", "yes"}  # what is printed or written instead
    renamed = {"sets": "set", "no_mlflow": "mlflow", "experiments": "experiments"}
    for name in ("run", "sweep", "report"):
        (command,) = [each for each in app.registered_commands if each.callback.__name__ == name]
        options = {renamed.get(option, option) for option in inspect.signature(command.callback).parameters}
        assert set(inspect.signature(getattr(clipbench, name)).parameters) == options - of_commands, name


def test_every_public_name_is_annotated_and_documented():
    for name in clipbench.__all__:
        assert name == "__version__" or inspect.getdoc(getattr(clipbench, name)), name
    for function in (api.run, api.sweep, api.report):
        hints = typing.get_type_hints(function, {**vars(api), **vars(typing)})
        assert set(hints) == {*inspect.signature(function).parameters, "return"}
    for name, member in inspect.getmembers(Result):
        if name[0] != "_":
            assert inspect.getdoc(member), name


STRICT = """
import clipbench

result = clipbench.run("x.yaml", seeds=4, set={"train.epochs": 2}, workers="auto")
svg: str = result.figure("thresholds").svg
reveal_type(clipbench.report("x.yaml", "y"))
clipbench.run("x.yaml", sedes=4)
"""
CONFIG = """
[mypy]
strict = True
follow_imports = skip
[mypy-clipbench.*]
follow_imports = silent
"""


@pytest.mark.slow
def test_a_strict_type_checker_sees_the_types(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "mypy.ini").write_text(CONFIG)
    (tmp_path / "script.py").write_text(STRICT)
    root = str(api.__file__).removesuffix("/clipbench/api.py")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "script.py"],
        cwd=tmp_path, env={**environment(), "MYPYPATH": root}, capture_output=True, text=True,
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if "defined in" not in line]
    assert 'Revealed type is "clipbench.commands.result.Result"' in said[0], done.stdout
    assert 'Unexpected keyword argument "sedes"' in said[1] and len(said) == 3


def test_the_package_is_run_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "clipbench", "--version"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == CliRunner().invoke(app, ["--version"]).stdout
