"""Every malformed experiment gives exit code 2 and placed messages, held word by word; never a traceback."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from clipbench import config
from clipbench.cli import app
from clipbench.errors import InputError
from tests.golden_files import check_golden

GOOD = """\
name: good
data: digits
model: {name: mlp, hidden: [16]}
optimizer: {name: sgd, lr: 0.1}
train: {epochs: 2, batch_size: 64}
clip:
  - none
  - {name: norm, threshold: [0.5, 1.0]}
seeds: 2
"""


def changed(section: str, text: str) -> str:
    """The good experiment with one section written otherwise."""
    lines = re.sub(rf"(?m)^{section}:.*\n(?:[ ]+.*\n)*", "", GOOD)
    return lines + text + "\n"


def clip(entry: str) -> str:
    return changed("clip", f"clip:\n  - none\n  - {entry}")


MALFORMED = {
    # not YAML, or not the YAML of an experiment
    "empty": "",
    "control_character": changed("data", 'data: "\\e[31mdigits"'),
    "control_character_in_a_key": GOOD + '"re\\x1b]0;port": {}\n',
    "text_that_turns": changed("name", 'name: "good\\u202e"'),
    "only_comments": "# nothing\n\n",
    "scalar": "just text\n",
    "list_at_the_top": "- a\n- b\n",
    "tab": GOOD + "report:\n\tmargin: 0.1\n",
    "unclosed_bracket": GOOD.replace("hidden: [16]", "hidden: [16"),
    "unclosed_quote": GOOD.replace("name: good", 'name: "good'),
    "colon_in_text": "name: a: b\n",
    "bad_indentation": "clip:\n  - none\n - norm\n",
    "reserved_character": changed("name", "name: @good"),
    "undefined_alias": changed("data", "data: *nowhere"),
    "cycle": changed("clip", "clip: &all\n  - none\n  - *all"),
    "alias_bomb": "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)),
    # Text that is short in the file, and gigabytes where each use of it is written out.
    "alias_of_long_text": f"a: &a '{'x' * 100_000}'\nb: [{', '.join(['*a'] * 40_000)}]\n",
    "long_key": f"? {'x' * 100_000}\n: [{'1, ' * 40_000}]\n",
    "long_name": changed("model", f"model: {'x' * 300_000}"),
    "many_mistakes": changed("clip", f"clip: [{', '.join(f'nrom{number}' for number in range(5000))}]"),
    "deep_nesting": "clip: " + "[" * 100_000,
    "deep_mappings": "".join(f"{' ' * depth}a:\n" for depth in range(60)),
    "python_object": changed("name", "name: !!python/object/apply:os.system ['true']"),
    "binary": changed("name", "name: !!binary aGVsbG8="),
    "custom_tag": changed("data", "data: !secret digits"),
    "tag_that_lies": changed("seeds", "seeds: !!int many"),
    "two_documents": GOOD + "---\nname: other\n",
    "merge_key": changed("optimizer", "optimizer:\n  <<: {lr: 0.1}\n  name: sgd"),
    "duplicate_key": GOOD + "seeds: 3\n",
    "duplicate_option": clip("{name: norm, threshold: 1, threshold: 2}"),
    "number_as_key": GOOD + "1: x\n",
    "null_as_key": changed("train", "train: {~: 3}"),
    "list_as_key": changed("train", "train: {[a]: 3}"),
    # sections
    "unknown_section": GOOD + "sedes: 3\n",
    "include": GOOD + "include: other.yaml\n",
    "nothing_but_a_name": "name: alone\n",
    "section_is_null": changed("clip", "clip:"),
    "name_with_a_path": changed("name", "name: ../../etc"),
    "name_is_a_number": changed("name", "name: 2024"),
    "name_of_the_store": changed("name", "name: mlflow.db"),
    "name_is_a_list": changed("name", "name: [a, b]"),
    "seeds_zero": changed("seeds", "seeds: 0"),
    "seeds_text": changed("seeds", "seeds: many"),
    "seeds_true": changed("seeds", "seeds: true"),
    "seeds_negative": changed("seeds", "seeds: [0, -1]"),
    "seeds_twice": changed("seeds", "seeds: [0, 1, 1]"),
    "seeds_huge": changed("seeds", "seeds: 1" + "0" * 400),
    "seeds_too_many": changed("seeds", "seeds: 1000000000000"),
    "folder_missing": GOOD + "folder: nowhere\n",
    # components
    "unknown_strategy": clip("{name: nrom, threshold: 1}"),
    "unknown_model": changed("model", "model: mpl"),
    "unknown_data": changed("data", "data: digit"),
    "unknown_optimizer": changed("optimizer", "optimizer: {name: adma, lr: 0.1}"),
    "unknown_option": clip("{name: norm, treshold: 1}"),
    "option_of_another": changed("optimizer", "optimizer: {name: adam, momentum: 0.9}"),
    "no_name": clip("{strategy: norm, threshold: 1}"),
    "name_as_key": clip("norm: {threshold: 1}"),
    "name_is_null": clip("{name: null}"),
    "arm_is_null": clip(""),
    "arm_is_off": clip("off"),
    "arm_is_a_number": clip("3"),
    "no_arms": changed("clip", "clip: []"),
    "arm_twice": clip("{name: norm, threshold: [1, 2]}\n  - {name: norm, threshold: 2.0}"),
    "no_threshold": clip("norm"),
    "threshold_negative": clip("{name: norm, threshold: -0.5}"),
    "threshold_above_100_percent": clip("{name: autoclip, threshold: [50, 150]}"),
    "threshold_nan": clip("{name: norm, threshold: .nan}"),
    "threshold_text": clip("{name: norm, threshold: '1.0'}"),
    "threshold_true": clip("{name: norm, threshold: true}"),
    "threshold_mapping": clip("{name: norm, threshold: {value: 1}}"),
    "threshold_empty_list": clip("{name: norm, threshold: []}"),
    "threshold_twice": clip("{name: norm, threshold: [1, 1.0]}"),
    "threshold_too_large": clip("{name: norm, threshold: 1e999}"),
    "per_unknown": clip("{name: norm, threshold: 1, per: layer}"),
    "per_of_an_element_rule": clip("{name: value, threshold: 1, per: tensor}"),
    "exclude_text": clip("{name: norm, threshold: 1, exclude: head}"),
    "scope_unknown": clip("{name: norm, threshold: 1, scope: samples}"),
    "scope_of_no_shards": clip("{name: norm, threshold: 1, scope: {shards: 0}}"),
    "scope_of_something": clip("{name: norm, threshold: 1, scope: {parts: 4}}"),
    "scope_of_a_rule_that_remembers": clip("{name: autoclip, threshold: 10, scope: [batch, sample]}"),
    "scope_of_an_update": clip("{name: norm, threshold: 1, scope: sample, after: momentum}"),
    "noise_of_batches": clip("{name: norm, threshold: 1, noise: 1.0}"),
    "noise_while_nothing_is_clipped": clip("{name: norm, threshold: 1, scope: sample, noise: 1.0, warmup: 5}"),
    "delta_without_noise": clip("{name: norm, threshold: 1, scope: sample, delta: 0.001}"),
    "hidden_is_a_number": changed("model", "model: {name: mlp, hidden: 128}"),
    "hidden_too_large": changed("model", "model: {name: mlp, hidden: [1e300]}"),
    "combinations": changed(
        "optimizer",
        "optimizer: {name: sgd, lr: {log: [0.1, 1], points: 1000}, momentum: {linear: [0, 0.9], points: 11}}",
    ),
    "hidden_of_text": changed("model", "model: {name: mlp, hidden: [a lot]}"),
    "activation_unknown": changed("model", "model: {name: mlp, activation: rleu}"),
    "norway": changed("optimizer", "optimizer: {name: sgd, lr: 0.1, nesterov: yes}"),
    "lr_infinite": changed("optimizer", "optimizer: {name: sgd, lr: inf}"),
    "lr_negative": changed("optimizer", "optimizer: {name: sgd, lr: -1}"),
    "momentum_negative": changed("optimizer", "optimizer: {name: sgd, lr: [0.1, 1], momentum: [0, -1]}"),
    "betas_too_large": changed("optimizer", "optimizer: {name: adam, betas: [0.9, 2]}"),
    "group_of_nothing": changed("optimizer", "optimizer: {name: sgd, lr: 0.1, groups: [{momentum: 0.9}, bias]}"),
    "group_options": changed(
        "optimizer",
        "optimizer:\n  name: adamw\n  groups:\n    - {match: '*.bias', wieght_decay: 0}\n"
        "    - {match: [], lr: [1, 2]}\n    - {match: [head], betas: 1}",
    ),
    "group_values": changed(
        "optimizer",
        "optimizer:\n  name: adamw\n  groups:\n    - {match: '*.bias', weight_decay: -1}\n    - {match: head, lr: -2}",
    ),
    "groups_of_an_axis": changed(
        "optimizer",
        "optimizer:\n  name: adam\n  groups:\n    - [{match: head, eps: 1}]\n    - [{match: head, betas: [2, 2]}]",
    ),
    "groups_are_a_number": changed("optimizer", "optimizer: {name: sgd, lr: 0.1, groups: 0.5}"),
    "groups_twice": changed("optimizer", "optimizer: {name: sgd, groups: [[{match: head}], [{match: [head]}]]}"),
    "groups_searched": GOOD + "sweep: {search: {optimizer.groups: [1, 2]}}\n",
    "thresholds_of_nothing": clip("{name: norm, groups: {}}"),
    "thresholds_that_are_none": clip("{name: norm, groups: {head: null, '*': .inf}}"),
    "thresholds_below_zero": clip(
        "{name: norm, groups: [{head: -1}, {'*': two}, [1, -0.5], {match: [], threshold: 1}]}"
    ),
    "thresholds_twice": clip("{name: norm, groups: [[1, 2], [1.0, 2.0]]}"),
    "thresholds_of_a_rule_without": clip("{name: sign, groups: {head: 1}}"),
    "thresholds_of_steps": clip("{name: skip, threshold: 1, groups: {head: 1}}"),
    "thresholds_replaced": clip("{name: value, lower: -1, groups: {head: 1}}"),
    "thresholds_too_large": clip("{name: autoclip, threshold: 2, groups: {head: 60}}"),
    "thresholds_without_a_number": clip("{name: norm, groups: [{match: head}, {match: '*', threshold: 1}]}"),
    "adapt_values": clip("{name: norm, threshold: 1, scope: sample, adapt: [2, {quantile: 0.5, nosie: 1}, {lr: -1}]}"),
    "adapt_bounds": clip("{name: norm, threshold: 1, scope: sample, adapt: {quantile: 0.5, min: 2, max: 1}}"),
    "adapt_rate": clip("{name: norm, threshold: 1, scope: sample, adapt: {quantile: 0.5, lr: -1}}"),
    "adapt_without_sample": clip("{name: norm, threshold: 1, adapt: 0.5}"),
    "adapt_without_noise": clip("{name: norm, threshold: 1, scope: sample, noise: 1, adapt: 0.5}"),
    "adapt_with_groups": clip("{name: norm, scope: sample, adapt: 0.5, groups: {'*': 1}}"),
    "adapt_of_a_rule_that_always_acts": clip("{name: normalize, threshold: 1, scope: sample, adapt: 0.5}"),
    "error_if_nonfinite_is_a_word": clip("{name: skip, threshold: 1, error_if_nonfinite: 'yes'}"),
    "betas_too_many": changed("optimizer", "optimizer: {name: adam, betas: [0.9, 0.9, 0.9]}"),
    "split_is_a_number": changed("data", "data: {name: digits, split: 0.2}"),
    "split_too_large": changed("data", "data: {name: digits, split: {val: 0.6, test: 0.6}}"),
    "split_of_everything": changed("data", "data: {name: digits, split: {val: 1.5}}"),
    "split_unknown": changed("data", "data: {name: digits, split: {valid: 0.2}}"),
    "folds_many": changed("data", "data: {name: digits, folds: 1000000000}"),
    "limit_zero": changed("data", "data: {name: digits, limit: 0}"),
    # the user's own
    "no_such_module": changed("model", "model: nowhere.at.all:net"),
    "no_such_file": changed("model", "model: ./nowhere.py:net"),
    "module_is_code": changed("model", "model: '__import__(\"os\").system:x'"),
    # ranges
    "range_backwards": clip("{name: norm, threshold: {log: [1, 0.1]}}"),
    "range_of_one": clip("{name: norm, threshold: {log: [1]}}"),
    "range_log_zero": clip("{name: norm, threshold: {log: [0, 1]}}"),
    "range_negative": clip("{name: norm, threshold: {linear: [-1, 1]}}"),
    "range_infinite": clip("{name: norm, threshold: {linear: [0, .inf]}}"),
    "range_too_wide": clip("{name: norm, threshold: [{log: [1e-300, 1e300]}, {linear: [-1e308, 1e308]}]}"),
    "range_no_points": clip("{name: norm, threshold: {log: [0.1, 1], points: 0}}"),
    "range_many_points": clip("{name: norm, threshold: {log: [0.1, 1], points: 1000000000}}"),
    "range_unknown_key": clip("{name: norm, threshold: {log: [0.1, 1], point: 3}}"),
    "range_both": clip("{name: norm, threshold: {log: [0.1, 1], linear: [0.1, 1]}}"),
    "range_of_text": changed("model", "model: {name: mlp, activation: {log: [1, 2]}}"),
    # training
    "epochs_and_steps": changed("train", "train: {epochs: 2, steps: 100}"),
    "epochs_zero": changed("train", "train: {epochs: 0}"),
    "epochs_text": changed("train", "train: {epochs: ten}"),
    "epochs_fraction": changed("train", "train: {epochs: 1.5}"),
    "batch_size_all": changed("train", "train: {batch_size: all}"),
    "train_is_text": changed("train", "train: fast"),
    "train_unknown": changed("train", "train: {epoch: 3}"),
    "dtype_unknown": changed("train", "train: {dtype: float16}"),
    "loss_unknown": changed("train", "train: {loss: cross_entopy}"),
    "no_data": changed("data", "data: none"),
    "metrics_is_text": changed("train", "train: {metrics: accuracy}"),
    "target_unknown": changed("train", "train: {target: {val/acuracy: 0.9}}"),
    "target_is_a_number": changed("train", "train: {target: 0.9}"),
    "schedule_unknown": changed("train", "train: {schedule: cosin}"),
    "schedule_option": changed("train", "train: {schedule: [linear, {name: step, warmup: -1}]}"),
    "schedule_twice": changed("train", "train: {schedule: [cosine, {name: cosine, final: 0}]}"),
    "noise_unknown": changed("train", "train: {noise: gaussian}"),
    "noise_option": changed("train", "train: {noise: {name: weibull, scael: 0.2, shape: x}, l1: -1}"),
    "early_stop_patience": changed("train", "train: {early_stop: {measure: val/loss, patience: 0}}"),
    "early_stop_nothing": changed("train", "train: {early_stop: {measure: val/loss}}"),
    "early_stop_measure": changed("train", "train: {early_stop: {measure: val/los, patience: 3}}"),
    "early_stop_option": changed("train", "train: {early_stop: [3, {patince: 3}]}"),
    "early_stop_text": changed("train", "train: {early_stop: soon}"),
    "noise_bounds": changed("train", "train: {noise: [{name: pareto, alpha: 1}, {name: levy, alpha: 2.5, scale: -1}]}"),
    "schedule_bounds": changed("train", "train: {schedule: [{name: step, every: 0}, {name: linear, final: -1}]}"),
    "epoch_steps_of_a_table": changed("train", "train: {epoch_steps: 10}"),
    # report, sweep, claims
    "report_metric": GOOD + "report: {metric: test/acuracy}\n",
    "report_baseline": GOOD + "report: {baseline: nrom}\n",
    "report_baseline_too_large": GOOD + "report: {baseline: 1e999}\n",
    "report_margin": GOOD + "report: {margin: -1}\n",
    "sweep_unknown": GOOD + "sweep: {trails: 4}\n",
    "sweep_sampler": GOOD + "sweep: {sampler: grid}\n",
    "sweep_timeout": GOOD + "sweep: {timeout: soon}\n",
    "sweep_trials": GOOD + "sweep: {trials: 0, seeds: 1.5, batch: many, confirm_seeds: -1}\n",
    "sweep_search": GOOD + "sweep: {search: {optimiser.lr: {log: [0.1, 1]}, train.epochs: 3, lr: [1, 2]}}\n",
    "sweep_search_is_a_list": GOOD + "sweep: {search: [optimizer.lr]}\n",
    "sweep_search_of_a_setting": GOOD + "sweep: {search: {data.limit: [1, 2], model.hidden: [[1], [2]]}}\n",
    "sweep_search_unknown": GOOD + "sweep: {search: {optimizer.momentun: [0, 1], 'clip[1].windw': [1, 2],\n"
    "  clip.per: [model, tensor], 'clip[7].p': [1, 2], 'clip[0].p': [1, 2], 'optimizer[0].lr': [1, 2]}}\n",
    "sweep_search_no_space": GOOD + "sweep: {search: {optimizer.lr: 3, clip.p: [], optimizer.momentum: [0.9],\n"
    "  optimizer.dampening: [0, {log: [0.1, 1]}], clip.threshold: [null, 1]}}\n",
    "sweep_search_ends": GOOD + "sweep: {search: {optimizer.lr: {log: [0, 1]}, clip.threshold: {linear: [-1, 1]},\n"
    "  clip.p: {log: [0.5, 0.1]}, optimizer.momentum: {linear: [0, 1], log: [1, 2]},\n"
    "  optimizer.nesterov: {linear: [0, 1]}, optimizer.weight_decay: {log: [0.1, 1], points: 3}}}\n",
    "sweep_search_values": GOOD + "sweep: {search: {optimizer.lr: [0.1, fast], optimizer.momentum: [0.9, -1, 0.90],\n"
    "  optimizer.nesterov: [0, 1], clip.p: [1, 1.0]}}\n",
    "sweep_search_whole": changed("clip", "clip: {name: autoclip, threshold: 10}")
    + "sweep: {search: {clip.window: {linear: [1.5, 10]}}}\n",
    "sweep_search_optimizer": GOOD
    + "sweep: {search: {optimizer.momentum: {linear: [-1, 0.9]}, optimizer.lr: [0.1, -1]}}\n",
    "sweep_objective": GOOD + "sweep: {objective: test/accuracy}\n",
    "sweep_objectives": GOOD + "sweep: {objective: [val/acuracy, 3, val/loss, val/loss, generalization_gap]}\n",
    "sweep_no_objective": GOOD + "sweep: {objective: [], direction: up}\n",
    "sweep_directions": GOOD + "sweep: {objective: [val/loss, val/accuracy], direction: maximize}\n",
    "sweep_pruner_of_several": GOOD + "sweep: {objective: [val/loss, val/accuracy], pruner: median}\n",
    "sweep_pruner_of_the_end": GOOD + "sweep: {objective: best_val/accuracy, pruner: hyperband}\n",
    "sweep_without_target": GOOD + "sweep: {objective: [val/accuracy, epochs_to_target]}\n",
    "sweep_without_data": "model: quadratic\noptimizer: sgd\ntrain: {loss: output}\nclip: none\n"
    "sweep: {objective: val/loss}\n",
    "sweep_beside_other_mistakes": changed("clip", "clip: [none, {name: autoclip, threshhold: 10}]")
    + "sweep: {search: {clip.window: [10, 100], optimizer.lr: {log: [1, 0.1]}}, trials: no}\n",
    "claims_is_text": GOOD + "claims: it helps\n",
    "claim_says_nothing": GOOD + "claims: [{expect: a > b}, {says: x, expect: ''}]\n",
    # several mistakes are said at once
    "many": "name: a/b\ndata: digit\nmodel: {name: mlp, hiden: [1]}\noptimizer: {name: sgd, lr: x}\n"
    "train: {epochs: -1}\nclip: [nrom, {name: norm, threshold: .nan}]\nseeds: {}\nreprot: {}\n",
}
# What is wrong there is the file as a whole.
WITHOUT_LINE = {"seeds_too_many", "many_mistakes"}


def refused(path: Path, *sets: str) -> str:
    with pytest.raises(InputError) as caught:
        config.load(path, sets)
    return str(caught.value)


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_file_is_refused_with_the_place_of_every_mistake(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("experiment.yaml")
    path.write_text(MALFORMED[name])
    text = refused(path)
    assert max(map(len, text.splitlines())) < 3000
    if name not in WITHOUT_LINE:
        assert all(re.match(r"experiment\.yaml:\d+:\d+: ", line) for line in text.splitlines()), text
    check_golden(f"errors/{name}.txt", text.replace(str(tmp_path), "/folder"))


@pytest.mark.parametrize("name", ["empty", "tab", "cycle", "deep_nesting", "many"])
def test_check_exits_with_2_and_says_what_load_says(name, tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text(MALFORMED[name])
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 2
    assert result.stderr == refused(path) + "\n"
    assert result.stdout == ""


def test_good_experiment_is_good(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    assert config.load(path).size == 6


def test_missing_file_names_a_near_one(tmp_path):
    (tmp_path / "quickstart.yaml").write_text(GOOD)
    assert refused(tmp_path / "quickstrat.yaml").endswith("there is no such file. Did you mean `quickstart.yaml`?")


def test_folder_names_its_experiments(tmp_path):
    (tmp_path / "a.yaml").write_text(GOOD)
    assert refused(tmp_path).endswith("is a folder, not an experiment. Its experiments: a.yaml.")


@pytest.mark.parametrize("name", ["a pipe", "an endless device", "a link to itself"])
def test_what_is_no_regular_file_is_refused_at_once(name, tmp_path):
    path = tmp_path / "odd.yaml"
    if name == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("odd.yaml" if name == "a link to itself" else "/dev/zero")
    said = "cannot be read: Too many levels of symbolic links." if "link" in name else "is not a regular file."
    assert said in refused(path)
    for words in (["init", "--force"], ["run", "--dry-run"], ["export"]):
        result = CliRunner().invoke(app, [*words, str(path)])
        assert result.exit_code == 2 and str(path) in result.stderr, result.stderr


@pytest.mark.parametrize(
    "words", [["check", "--nonsense"], ["run", "x.yaml", "--device"], ["list"], ["check", "--set"]]
)
def test_a_long_or_strange_word_of_the_command_line_is_quoted_in_short(words):
    result = CliRunner().invoke(
        app, [*words[:-1], words[-1] + "=" * words[-1].startswith("--") + "\x1b[31m" + "x" * 50_000]
    )
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr and max(map(len, result.stderr.splitlines())) < 2000


def test_name_that_no_file_can_have_is_refused(tmp_path):
    assert "cannot be read" in refused(tmp_path / ("x" * 5000))
    assert "cannot be read" in refused(Path("a\0b.yaml"))
    path = tmp_path / "good.yaml"
    path.write_text(changed("data", f"data: {{name: csv, path: {'x' * 300_000}, target: y}}"))
    assert "there is no file" in refused(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: caf\xe9\n", ":1:10: the byte 0xe9 is not UTF-8 text. Save the file as UTF-8."),
        ("name: good\n".encode("utf-16"), ":1:1: the byte 0xff is not UTF-8 text. Save the file as UTF-8."),
        (b"data: digits\nname: a\x00b\n", ":2:8: the character U+0000 is not allowed in YAML."),
        (b"\x80" * 1000, ":1:1: the byte 0x80 is not UTF-8 text. Save the file as UTF-8."),
        (b"[" * 10_000_000, ": is larger than 1,000,000 bytes. Make the experiment smaller."),
    ],
)
def test_bytes_that_are_no_text_are_refused_at_their_place(content, said, tmp_path):
    path = tmp_path / "bytes.yaml"
    path.write_bytes(content)
    assert refused(path) == f"{path}{said}"


def test_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert config.load(path).name == "good"


WORDS = st.sampled_from(
    [
        *":{}[],'\"#?|>~%@ \t\n",
        "- ",
        "\n  ",
        "&a ",
        "*a",
        "!!int ",
        "!x ",
        "1e9",
        "1",
        "<<",
        "---\n",
        "name",
        "clip",
        "data",
        "model",
        "norm",
        "none",
        "threshold",
        "log",
    ]
)
FUZZ = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def never_crashes(path: Path) -> None:
    try:
        config.load(path)
    except InputError as error:
        assert error.problems and str(error)


@FUZZ
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
def test_any_bytes_give_an_experiment_or_an_input_error(tmp_path, content):
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(content)
    never_crashes(path)


@FUZZ
@given(st.lists(WORDS, max_size=40).map("".join))
def test_any_tokens_of_yaml_give_an_experiment_or_an_input_error(tmp_path, text):
    path = tmp_path / "fuzz.yaml"
    path.write_text(text)
    never_crashes(path)


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.sampled_from(["norm", "", "full", "none", "./x.py:f"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["name", "log", "linear", "points", "threshold", "split"]), inner, max_size=3),
    ),
    max_leaves=6,
)
OPTIONS = [
    "model",
    "model.hidden",
    "optimizer.lr",
    "optimizer.betas",
    "optimizer.groups",
    "optimizer.groups[0].match",
    "train.target",
    "train.loss",
    "train.metrics",
]
OPTIONS += [
    "clip",
    "clip[1].threshold",
    "clip[1].exclude",
    "clip[1].groups",
    "clip[1].adapt",
    "clip[1].adapt.quantile",
    "clip[1].groups.head",
    "clip[1].per",
    "seeds",
    "name",
    "data",
    "data.split",
]
OPTIONS += [
    "report.baseline",
    "sweep",
    "sweep.objective",
    "sweep.direction",
    "sweep.search",
    'sweep.search."optimizer.lr"',
    'sweep.search."clip[1].threshold"',
    'sweep.search."clip.exclude"',
    "claims",
    "claims.says",
    "report.metric",
    "sweep.timeout",
    "train",
]


@FUZZ
@given(st.sampled_from(OPTIONS), VALUES)
def test_any_value_of_an_option_gives_an_experiment_or_an_input_error(tmp_path, key, value):
    import yaml

    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    try:
        config.load(path, [f"{key}={yaml.safe_dump(value, default_flow_style=True, width=10_000)}"])
    except InputError as error:
        assert all(problem.place.file for problem in error.problems)


@FUZZ
@given(st.text(max_size=30))
def test_any_set_gives_an_experiment_or_an_input_error(tmp_path, words):
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    try:
        config.load(path, [words])
    except InputError as error:
        assert error.problems
