"""The experiment that `clipbench init` writes: one that runs, with a comment on what can be said where."""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from clipbench.config.measure_names import is_measure
from clipbench.errors import InputError, Place

TEMPLATE = """\
# An experiment: which gradient clipping, at which threshold, does this model need, and does it matter at all?
#   clipbench check {file}     checks the file
#   clipbench run {file}       trains the trials that have no results yet and prints the comparison
#   clipbench sweep {file}     searches the best threshold of each strategy, and confirms it on fresh seeds
# `clipbench list` shows the available names and their options.
#
# Wherever one value is expected, a list gives one set of trials per value, and so does a range:
#   {{log: [0.01, 1.0], points: 5}}   or   {{linear: [0.1, 0.9], points: 3}}

name: {name} # of the folder under results/

# A name, or a mapping with options. Your own: {{name: ./data.py:function}}, which returns (x, y).
data: digits # or {{name: digits, split: {{val: 0.2, test: 0.2}}, limit: 500}}

# Your own: {{name: ./model.py:function}} or package.module:function, which returns an nn.Module.
model: {{name: mlp, hidden: [128]}}

optimizer: {{name: sgd, lr: 0.1, momentum: 0.9}}

train:
  epochs: 20 # or steps: 1000
  batch_size: 64 # or full
  # loss: cross_entropy # default: inferred from the targets
  # target: {{val/accuracy: 0.95}} # gives epochs_to_target

clip: # the arms, compared with each other on the same seeds
  - none
  - {{name: norm, threshold: [0.1, 0.5, 1.0, 5.0]}}
  - {{name: norm, per: tensor, threshold: {{log: [0.05, 5.0], points: 4}}}}
  - {{name: value, threshold: {{log: [0.001, 0.1], points: 4}}}}
  - {{name: agc, threshold: [0.01, 0.1], exclude: [head]}}

seeds: 8 # or a list; at least 6 for p < 0.05, more with several strategies

report:
  metric: test/accuracy
  baseline: none # what every other arm is compared with
  margin: 0.005 # a difference smaller than this does not matter

# Options to search in addition to thresholds, which are searched in their whole ranges.
# sweep: {{trials: 40, seeds: 3, search: {{optimizer.lr: {{log: [0.01, 1.0]}}}}}}
"""

SCRIPT_TEMPLATE = """\
# An experiment: which gradient clipping, at which threshold, does this training script need, and does it matter at all?
#   clipbench check {file}     checks the file
#   clipbench run {file}       trains the trials that have no results yet and prints the comparison
#   clipbench sweep {file}     searches the best threshold of each strategy, and confirms it on fresh seeds
#
# The script is a function main(clip, seed, ...) that calls clip.seed_all(), clip.attach(model, optimizer),
# clip.step(loss) in place of clip_grad_norm_ and optimizer.step(), clip.report({{"val/loss": ...}}) now and then, and
# returns its measures: {{"test/loss": ...}}.

name: {name} # of the folder under results/

train:
  script: {script} # its function is main; of another one ./file.py:function
  # Its arguments, of which a list such as [0.1, 0.3] gives one set of trials per value:
{arguments}
  {metrics} # which way is better, for measures other than loss, accuracy, mse and the like
  # timeout: 2h # of one trial
  # memory: 8GB # of one trial
  # threads: 1 # of one trial; there is one trial for each core

clip: # the arms, compared with each other on the same seeds
  - none
  - {{name: norm, threshold: [0.1, 1.0, 10.0]}}
  - {{name: autoclip, threshold: [10, 50]}}

seeds: 8 # or a list; at least 6 for p < 0.05, more with several strategies

report:
  metric: {metric}
  baseline: none # what every other arm is compared with

# Options to search in addition to thresholds, which are searched in their whole ranges.
# sweep: {{trials: 20, seeds: 2, objective: {objective}, search: {{train.lr: {{log: [0.0001, 0.01]}}}}}}
"""


def write_template(path: Path, *, script: str = "", force: bool = False) -> None:
    """Write the experiment, of a script if one is named, and over a file that is there only if told to."""
    place = Place(str(path))
    if path.exists() and not force:
        raise InputError.at(place, "already exists.", "Use --force to overwrite it, or name another file.")
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError.at(place, "is not a regular file.", "Name another file.")
    name = re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).lstrip("._-")[:100] or "experiment"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        known = {"file": shlex.quote(str(path)), "name": name}
        text = _of_script(script, path, known) if script else TEMPLATE.format(**known)
        path.write_text(text, "utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError.at(place, f"cannot be written: {reason}.") from None


def _of_script(script: str, experiment: Path, known: Mapping[str, str]) -> str:
    """Return the experiment of a script, with the arguments and the measure that its file shows."""
    file, _, function = script.partition(":")
    text = Path(file).read_text("utf-8") if file.endswith(".py") and Path(file).is_file() else ""
    arguments = [f"  # {name}: {value}" for name, value in _arguments(text, function or "main")] or ["  # lr: 0.001"]
    measures = sorted(set(re.findall(r"[\"'](test/\w+)[\"']", text)) or {"test/loss"})
    metric = "test/loss" if "test/loss" in measures else measures[0]
    own = (
        "# metrics: {bleu: maximize}"
        if is_measure(metric)
        else f"metrics: {{{metric.removeprefix('test/')}: minimize}}"
    )
    options = {
        "metrics": own,
        "arguments": "\n".join(arguments),
        "metric": metric,
        "objective": metric.replace("test/", "val/"),
    }
    return SCRIPT_TEMPLATE.format(**known, **options, script=_named(script, experiment))


def _arguments(text: str, function: str) -> Iterator[tuple[str, str]]:
    """Yield the arguments of a function with their defaults, as the text says them; nothing of it is run."""
    try:
        found = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == function]
    except (SyntaxError, RecursionError, MemoryError):  # the last two for deeply nested code
        return
    for node in found:
        given = node.args.args[len(node.args.args) - len(node.args.defaults) :]
        pairs = [
            *zip(given, node.args.defaults, strict=True),
            *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
        ]
        for argument, default in pairs:
            if isinstance(default, ast.Constant) and argument.arg not in ("clip", "seed"):
                yield argument.arg, yaml.safe_dump(default.value).removesuffix("...\n").strip()


def _named(script: str, experiment: Path) -> str:
    """Return the name of a script as an experiment in another folder writes it."""
    if not script or (":" in script and not script.rpartition(":")[0].endswith(".py")):
        return script  # package.module:function
    file, _, function = script.partition(":")
    beside = Path(os.path.relpath(file, experiment.parent)).as_posix()
    return f"{beside if beside.startswith('.') else f'./{beside}'}{f':{function}' if function else ''}"
