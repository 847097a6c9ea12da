"""A training script that runs alone: `python train.py --clip norm@1.0 --seed 3`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from clipbench.clipper.rule_reading import read_rule
from clipbench.core.trial import NOTHING, Component, Training, Trial
from clipbench.errors import InputError
from clipbench.scripts.script_clip import ScriptClip


class StandaloneClip(ScriptClip):
    """The `clip` object of a script that nobody else runs: it prints reports, keeps no files, and prunes nothing."""

    def report(self, measures: Mapping[str, float]) -> bool:
        super().report(measures)
        words = (f"{name} {value:.6g}" for name, value in self.reports[-1].items())
        print(f"step {len(self.log)}: {', '.join(words)}")
        return False


def clip_from_args(arguments: Sequence[str] | None = None) -> StandaloneClip:
    """Return the `clip` object of a script that is run by itself, by the rule that its command line names.

    It takes `--clip`, `--seed` and `--device` out of the command line, so that a parser of the script's own, which is
    called afterwards, finds all other arguments: `python train.py --clip norm@1.0 --seed 3`. Without `--clip`, nothing
    is clipped.

    Parameters
    ----------
    arguments
        In place of those of the command line.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--clip", default="none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    given, others = parser.parse_known_args(arguments)
    if arguments is None:
        sys.argv[1:] = others
    try:
        arm = read_rule(given.clip, {})
    except InputError as error:
        print(f"--clip: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    script = Component.of("alone")
    trial = Trial(None, NOTHING, NOTHING, Training(), arm, given.seed, script=script)
    return StandaloneClip(trial, given.device, ends_when_diverged=False)
