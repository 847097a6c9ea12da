"""Derive the contenders of a plan, each a strategy in one setting, with the hyperparameters that a sweep searches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from clipbench.config import Experiment
from clipbench.config.axes import Range
from clipbench.config.components import Choice
from clipbench.config.search_space import SearchedOption, searched_options, takes
from clipbench.core.trial import Component, Trial, Value
from clipbench.errors import InputError, Problem
from clipbench.planning.contender import Contender, Hyperparameter, option_of, part_of, path_of
from clipbench.planning.plan import Plan
from clipbench.plugins import registry

# From this ratio of its ends on, a range is searched by the logarithm unless the YAML says `linear`.
WIDE = 10
FOLD = "fold"
# Columns of the records that tell settings apart, the most telling first; others follow by their names.
NAMES = ("data", "model", "optimizer", "lr")
SECTIONS = ("data.", "model.", "optimizer.", "train.")


def contenders(plan: Plan) -> tuple[Contender, ...]:
    """Return every strategy in every setting; raise InputError if its search space is not defined."""
    return contenders_of(plan.experiment, plan.trials)


def contenders_of(experiment: Experiment, trials: Sequence[Trial]) -> tuple[Contender, ...]:
    """Return the contenders to which these trials belong."""
    file = _File(experiment)
    groups: dict[Hashable, list[Trial]] = {}
    for trial in trials:
        if trial.seed == trials[0].seed:
            groups.setdefault(file.fixed(trial), []).append(trial)
    found = [file.contender(group) for group in groups.values()]
    if not any(contender.hyperparameters for contender in found) and not file.problems:
        text = "there is nothing to search: no strategy here has a threshold."
        remedy = "Add one that has, or write sweep: {search: {optimizer.lr: {log: [0.001, 1]}}}."
        file.problems.append(Problem(experiment.place("clip"), text, remedy))
    named = [replace(contender, setting=setting) for contender, setting in zip(found, _settings(found), strict=True)]
    file.problems += _namesakes(experiment, named)
    if file.problems:
        raise InputError(file.problems)
    return tuple(named)


def _namesakes(experiment: Experiment, found: Sequence[Contender]) -> Iterator[Problem]:
    """Report entries with the same label that differ in what is searched: their results could not be distinguished."""
    count = Counter(contender.label for contender in found)
    for contender in found:
        if count[contender.label] > 1:
            text = f"{contender.label} occurs several times, and some options are searched in only one of them."
            remedy = "Write one entry with all of its thresholds, or the path without its index."
            yield Problem(experiment.place(contender.parts["clip"].key), text, remedy)


@dataclass(frozen=True)
class _Written:
    """A component as written in the YAML, with its searched options."""

    choice: Choice
    searched_options: Mapping[str, SearchedOption]


class _File:
    """The components of an experiment whose options can be searched, as written in its YAML."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.problems: list[Problem] = []
        trained = ("optimizer", experiment.optimizers)
        if experiment.is_script:
            trained = ("train", tuple(script for script in experiment.scripts if script))
        self.parts = {section: self._written(section, found) for section, found in (trained, ("clip", experiment.arms))}
        self.arms = self.parts["clip"]

    def fixed(self, trial: Trial) -> Hashable:
        """Return what all points of a contender have in common."""
        kept = {}
        for section, written in self.parts.items():
            component = part_of(trial, section)
            kept[section] = component.without(*written[component].searched_options)
        kept["clip"] = kept["clip"].without("threshold")
        return trial.data and trial.data.without(FOLD), trial.model, trial.train, *kept.values()

    def contender(self, group: Sequence[Trial]) -> Contender:
        # A trial without a threshold is not a point of the search, unless there are no others.
        trials = [trial for trial in group if trial.threshold is not None] or group
        first = trials[0]
        written = {section: known[part_of(first, section)] for section, known in self.parts.items()}
        arm = written["clip"]
        folds = {trial.data: trial for trial in reversed(trials)}
        hyperparameters = (
            *self._threshold(trials),
            *(param for section in written for param in _hyperparameters(section, written[section], trials)),
        )
        places = [option_of(param.path) for param in hyperparameters]
        kept = first.clip.without(*(option for section, option in places if section == "clip"))
        return Contender(
            name=arm.choice.label(kept.as_dict()),
            setting="",
            templates=tuple(reversed(folds.values())),
            parts={section: found.choice for section, found in written.items()},
            hyperparameters=hyperparameters,
            left_out=tuple(dict.fromkeys(trial.arm for trial in group if _is_left_out(trial, hyperparameters))),
        )

    def _written(self, section: str, components: Sequence[Component]) -> dict[Component, _Written]:
        search = self.experiment.sweep.search if self.experiment.sweep else {}
        choices = {(choice.key, choice.name): choice for choice in self.experiment.choices[section]}
        found = {}
        for component, key in zip(components, self.experiment.keys[section], strict=True):
            choice = choices[key, component.name]
            found[component] = _Written(choice, searched_options(choice, search))
        return found

    def _threshold(self, trials: Sequence[Trial]) -> Iterator[Hyperparameter]:
        arms = [self.arms[trial.clip] for trial in trials]
        first = arms[0].choice
        if trials[0].threshold is None:
            return
        chosen = (arm.searched_options.get("threshold") for arm in arms)
        said = next(filter(None, chosen), None) or self._range(trials)
        if said:
            yield _hyperparameter("threshold", said, trials, first)
        else:
            text = f"{first.name} declares no range of thresholds to search."
            remedy = "Write a range: threshold: {log: [0.01, 100]}."
            self.problems.append(Problem(self.experiment.place(f"{first.key}.threshold"), text, remedy))

    def _range(self, trials: Sequence[Trial]) -> SearchedOption | None:
        """Return the range of the YAML, or else of the rule, extended to include the other values in the YAML."""
        choices = list({id(choice): choice for choice in (self.arms[trial.clip].choice for trial in trials)}.values())
        ranges = [(choice.key, found) for choice in choices for found in dict(choice.axes)["threshold"].ranges]
        if ranges:
            low, high = min(found.low for _, found in ranges), max(found.high for _, found in ranges)
            log = any(found.log for _, found in ranges)
        elif search := registry.of("strategy", trials[0].clip).facts.get("search"):
            low, high = search
            log = low > 0 and high / low >= WIDE
        else:
            return None
        # A log scale cannot contain the threshold 0.
        thresholds = [trial.threshold for trial in trials if trial.threshold is not None]
        held = [threshold for threshold in thresholds if threshold > 0 or low <= 0]
        key = ranges[0][0] if ranges else choices[0].key
        return SearchedOption(f"{key}.threshold", Range(min(low, *held), max(high, *held), log))


def _hyperparameters(section: str, written: _Written, trials: Sequence[Trial]) -> Iterator[Hyperparameter]:
    """Yield the searched options of a component, except a threshold, whose values come from several components."""
    for option, found in written.searched_options.items():
        if (section, option) != ("clip", "threshold"):
            yield _hyperparameter(option, found, trials, written.choice)


def _hyperparameter(option: str, found: SearchedOption, trials: Sequence[Trial], choice: Choice) -> Hyperparameter:
    values = dict.fromkeys(part_of(trial, choice.section).as_dict().get(option) for trial in trials)
    given = tuple(value for value in values if _within(value, found.space))
    path, space = path_of(choice.section, option), found.space
    if not isinstance(space, Range):
        return Hyperparameter(path, found.key, choices=space, given=given)
    param = Hyperparameter(path, found.key, space.low, space.high, space.log, space.integer, given=given)
    beyond = {"low": param.widened("low")[0], "high": param.widened("high")[1]}
    taken = (end for end in beyond if beyond[end] != getattr(param, end) and takes(choice, option, beyond[end]))
    return replace(param, can_widen=tuple(taken))


def _is_left_out(trial: Trial, hyperparameters: Sequence[Hyperparameter]) -> bool:
    return any(param.path == "threshold" and trial.threshold not in param.given for param in hyperparameters)


def _within(value: Value, space: Range | tuple[Value, ...]) -> bool:
    if not isinstance(space, Range):
        return value in space
    return isinstance(value, int | float) and not isinstance(value, bool) and space.low <= value <= space.high


def _settings(found: Sequence[Contender]) -> list[str]:
    """Describe each setting by as few columns as distinguish it from the others."""
    rows = [_setting(contender) for contender in found]
    names = {name for row in rows for name in row}
    columns = [name for name in NAMES if name in names] + sorted(name for name in names if name.startswith(SECTIONS))
    kept: list[str] = []
    for column in columns:
        if _groups(rows, [*kept, column]) > _groups(rows, kept):
            kept.append(column)
    return [", ".join(_word(name, row[name]) for name in kept if name in row) for row in rows]


def _setting(contender: Contender) -> dict[str, Value]:
    row = contender.templates[0].columns()
    searched_paths = {param.path for param in contender.hyperparameters}
    return {
        name: value
        for name, value in row.items()
        if (name in NAMES or name.startswith(SECTIONS)) and name != f"data.{FOLD}" and name not in searched_paths
    }


def _groups(rows: Sequence[Mapping[str, Value]], columns: Sequence[str]) -> int:
    return len({tuple(row.get(column) for column in columns) for row in rows})


def _word(column: str, value: Value) -> str:
    return str(value) if column in ("data", "model", "optimizer") else f"{column}={value}"
