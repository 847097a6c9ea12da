"""The command export: the arm that a report recommends, or that of a strategy, for use in other programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbench.analysis.report_model import ArmResult, Setting
from clipbench.commands.session import Settings
from clipbench.core.arm_label import ArmLabel
from clipbench.errors import ClipbenchError, InputError, Place, did_you_mean
from clipbench.reporting import answer, notes, use_it
from clipbench.reporting.arm_code import CLIPPER, TITLES, TORCH, ArmCode, CodedArm
from clipbench.reporting.tones import HELPS
from clipbench.reporting.write import build
from clipbench.search.confirmed_report import find_study


@dataclass(frozen=True)
class ExportedArm:
    """An arm of a setting of a study."""

    study: str
    setting: Setting
    row: ArmResult

    @property
    def coded(self) -> CodedArm:
        return use_it.coded(self.row)

    @property
    def is_recommended(self) -> bool:
        return self.row.arm == answer.answer(self.setting).arm

    @property
    def verdict(self) -> str:
        """That of the setting for the arm that it recommends, else that of the arm."""
        return answer.answer(self.setting).verdict if self.is_recommended else self.row.verdict

    @property
    def comment(self) -> str:
        """A line of Python that says where the code is from."""
        where = f"{self.study}, {self.setting.label}" if self.setting.label else self.study
        verdict = f"; verdict: {self.verdict}" if self.verdict else ""
        tuning = f" (trained with {self.row.tuning})" if self.row.tuning else ""
        return " ".join(f"# {where}: {self.row.short}{tuning}{verdict}".split())

    @property
    def notes(self) -> Iterator[str]:
        if not self.is_recommended:
            yield f"the answer of the report is another: {use_it.sentence(self.setting)}"
        elif self.verdict != HELPS or self.row.tuning:
            yield use_it.sentence(self.setting)
        if self.is_recommended and self.coded.is_unclipped:
            others = ", ".join(dict.fromkeys(row.strategy for row in self.setting.rows if row != self.row))
            yield f"`--strategy NAME` prints the lines of a strategy all the same: {others}."

    def code(self, library: str | None) -> ArmCode:
        """Return the code for a library; without one that of torch, or of clipbench's Clipper where torch has none."""
        if library is None:
            found = self.coded.code(TORCH)
            return found if found.lines else self.coded.code(CLIPPER)
        if library not in TITLES:
            text = f"there is no code for {library!r}."
            raise InputError.at(Place("--to"), text, did_you_mean(library, TITLES))
        return self.coded.code(library)


def exported_arm(
    study: str, settings: Settings, strategy: str | None = None, label: str | None = None, *, grid: bool = False
) -> ExportedArm:
    """Return the recommended arm of a study; or the best threshold of a strategy, or an arm by its name.

    `label` names one of several settings. Nothing is trained, and nothing is written.
    """
    subject, store, swept = find_study(study, settings, grid=grid)
    report = build(subject, store.records(), swept)
    place = Place(str(Path(study)))
    if not report.settings:
        raise ClipbenchError(f"{place}: {' '.join(notes.of_report(report))}")
    setting = _setting(report.settings, label, place)
    row = _of_strategy(setting, strategy, place) if strategy else use_it.recommended(setting)
    if row is None:
        raise InputError.at(place, use_it.sentence(setting), f"Add `--strategy NAME`: {_strategies(setting)}.")
    return ExportedArm(subject.name, setting, row)


def _setting(settings: Sequence[Setting], label: str | None, place: Place) -> Setting:
    """Return the setting of this label, or the only one that has all of its parts."""
    labels = [setting.label or setting.words for setting in settings]
    if label is None:
        if len(settings) > 1:
            text = f"there are {len(settings)} settings: {'; '.join(labels)}."
            raise InputError.at(place, text, f"Name one: `--setting '{labels[0]}'`.")
        return settings[0]
    found = [each for each, known in zip(settings, labels, strict=True) if label == known]
    found = found or [each for each, known in zip(settings, labels, strict=True) if _is_part(label, known)]
    if len(found) != 1:
        text = f"{'several settings are' if found else 'no setting is'} called {label!r}."
        raise InputError.at(Place("--setting"), text, f"Known: {'; '.join(labels)}.")
    return found[0]


def _is_part(wanted: str, label: str) -> bool:
    """Whether a label has all parts that are wanted."""
    known = [_part(each) for each in label.split(",")]
    return all(_part(each) in known for each in wanted.split(","))


def _part(text: str) -> tuple[str, str]:
    """Return the name and the value of a part of a label; `lr=0.1` may stand for `train.lr=0.1`."""
    name, _, value = text.strip().partition("=")
    return name.rpartition(".")[2], value


def _of_strategy(setting: Setting, strategy: str, place: Place) -> ArmResult:
    named = [row for row in setting.rows if strategy in (row.arm, row.short)]
    if named:
        return named[0]
    labels = [label for label in _labels(setting) if strategy in (label, ArmLabel.parse(label).name)]
    labels = [strategy] if strategy in labels else labels
    if not labels:
        known = [row.short for row in setting.rows] if "@" in strategy else _labels(setting)
        remedy = did_you_mean(strategy, known)
        raise InputError.at(Place(f"--strategy {strategy}"), "no such strategy was trained.", remedy)
    rows = [row for row in setting.main if row.strategy in labels]
    if len(rows) == 1:
        return rows[0]
    why = "it has several variants" if len(labels) > 1 else "there is no validation data that chooses one"
    arms = [row.short for row in rows or setting.rows if row.strategy in labels]
    text = f"which {strategy} is meant is not clear, because {why}: {', '.join(arms)}."
    raise InputError.at(place, text, f"Name one: `--strategy '{arms[0]}'`.")


def _labels(setting: Setting) -> dict[str, None]:
    return dict.fromkeys(row.strategy for row in setting.rows)


def _strategies(setting: Setting) -> str:
    return ", ".join(_labels(setting))
