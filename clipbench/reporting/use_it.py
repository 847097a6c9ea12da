"""The section "Use it" of a report: the answer as code to paste."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from clipbench.analysis.report_model import ArmResult, Report, Setting
from clipbench.reporting import answer
from clipbench.reporting.arm_code import ArmCode, CodedArm
from clipbench.reporting.tones import HELPS

TITLE = "Use it"
OF_ANOTHER = "The lines for another strategy at its best threshold:"


@dataclass(frozen=True)
class Use:
    """What to do in a training after a setting: a sentence, and the code if there is something to use."""

    title: str  # empty where the report has one setting
    sentence: str
    codes: tuple[ArmCode, ...]
    command: str  # which prints the code of another strategy, or that of this setting; empty without a name


def uses(report: Report) -> list[Use]:
    """What to use after each setting; the code is shown where there is one setting, else the command that prints it."""
    alone = len(report.settings) == 1
    found = []
    for setting in report.settings:
        row = recommended(setting)
        codes = _shown(coded(row)) if row and alone else ()
        command = f"clipbench export {shlex.quote(report.name)}" if report.name else ""
        if command and not alone:
            command += f" --setting {shlex.quote(setting.label)}"
        elif command:
            command += " --strategy NAME"
        found.append(Use("" if alone else setting.label, sentence(setting), codes, command))
    return found


def recommended(setting: Setting) -> ArmResult | None:
    """The arm to use: the best, or the baseline if no other is shown to be better; None if nothing is shown."""
    arm = answer.answer(setting).arm
    return next((row for row in setting.rows if row.arm == arm), None)


def coded(row: ArmResult) -> CodedArm:
    return CodedArm(row.short, row.strategy, row.threshold)


def sentence(setting: Setting) -> str:
    """What the answer means for a training."""
    found, row = answer.answer(setting), recommended(setting)
    if row is None:
        return f"Nothing is chosen, because of the verdict: {found.verdict}. {found.advice}"
    tuned = f" It was trained with {row.tuning}." if row.tuning else ""
    if found.verdict == HELPS:
        return f"Clip by {row.short}.{tuned}"
    if found.verdict == answer.NOT_SHOWN:
        return (
            f"Not decided: no strategy is shown to be better than {row.short}, nor to make no difference; more seeds "
            f"may show it. Until then, stay with {row.short}.{tuned}"
        )
    if coded(row).is_unclipped:
        return f"You need none: no strategy is shown to be better than {row.short}.{tuned}"
    return f"Stay with {row.short}: no strategy is shown to be better.{tuned}"


def _shown(arm: CodedArm) -> tuple[ArmCode, ...]:
    """The code for each library, without lines that are the same as those before; else why there is none."""
    found = {code.lines: code for code in reversed(arm.codes) if code.lines}
    return tuple(reversed(found.values())) or (arm.codes[0],)
