"""Experiments of scripts: their files, and one trial in this process."""

import shutil
from pathlib import Path

import yaml

from clipbench.clipper.rule_reading import read_rule
from clipbench.core.trial import NOTHING, Component, Training, Trial
from clipbench.scripts.script_clip import ScriptClip

HERE = Path(__file__).parent


def write_script(folder, script="hand_loop.py", file="script.yaml", **sections):
    """The experiment of a script of this folder as a file, with the script beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / script, folder / script)
    train = {"script": f"./{script}", **sections.pop("train", {})}
    path = folder / file
    path.write_text(yaml.safe_dump({"train": train, "clip": ["none"], "seeds": 1, **sections}, sort_keys=False))
    return path


def clip_of(rule="none", seed=0, **options):
    """The `clip` object of a trial."""
    script = Component.of("./hand_loop.py:main", **options.pop("script", {}))
    trial = Trial(None, NOTHING, NOTHING, Training(), read_rule(rule, {}), seed, script=script)
    return ScriptClip(trial, **options)
