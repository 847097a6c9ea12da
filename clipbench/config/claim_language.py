"""Parse what a claim expects: `zero > value`, `adam.norm@1.0 = adam.none`, `always(skip = none)`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clipbench.config.measure_names import is_measure
from clipbench.config.values import InvalidValue
from clipbench.core.trial import NOTHING, Component, Training, Trial
from clipbench.errors import did_you_mean
from clipbench.plugins.registry import catalogue

RELATIONS = "><="
ALWAYS = re.compile(r"always\s*\((.*)\)", re.DOTALL)
HOW = "Write for example `norm > none`, `adam.norm@1.0 = adam.none`, `none[train.l2=0.001] > none[train.l2=0]`."


@dataclass(frozen=True)
class Side:
    """Arms of an experiment: a strategy or all of them, at one threshold or its best, in all settings or some."""

    text: str
    strategy: str = ""
    threshold: float | None = None
    where: tuple[tuple[str, str], ...] = ()  # section and name: ("optimizer", "adam")
    options: tuple[tuple[str, str], ...] = ()  # column and value: ("train.l2", "0.001")
    minus: Side | None = None  # a difference: `(norm - none)` is what `norm` gains over `none`
    measure: str = ""  # every strategy, by this measure: `parameters`

    @property
    def arms(self) -> tuple[object, ...]:
        """What it names, however that is written."""
        minus = self.minus.arms if self.minus else ()
        return self.strategy, self.threshold, self.where, sorted(self.options), minus, self.measure

    def holds(self, strategy: str, threshold: float | None) -> bool:
        """Whether the side refers to this arm. Without a plain `norm`, it also refers to `norm` with options."""
        if self.strategy and strategy != self.strategy:
            return False
        return self.threshold is None or (threshold is not None and _same(threshold, self.threshold))


@dataclass(frozen=True)
class Expectation:
    """A relation between `left` and `right`: > is better, < is worse, = is within the margin.

    `always` asks for it in every setting, at every threshold and on every seed, else on average at the best threshold.
    """

    left: Side
    relation: str
    right: Side
    always: bool = False

    @property
    def measure(self) -> str:
        """The measure that a side names instead of arms; empty if none does."""
        return self.left.measure or self.right.measure


@dataclass(frozen=True)
class Vocabulary:
    """The names that claims may use: those of the experiment, and the built-in ones that `--set` may have left out."""

    thresholds: Mapping[str, tuple[float, ...]]  # of each strategy of the experiment
    sections: Mapping[str, str] = field(default_factory=dict)  # of the names of its data, models and optimizers
    built_in: Mapping[str, str] = field(default_factory=dict)  # names of built-in components, with their kinds
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the values of each option, by its column

    @classmethod
    def of(
        cls,
        arms: Iterable[Component],
        sections: Mapping[str, Iterable[Component | None]],
        options: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Vocabulary:
        known: dict[str, tuple[float, ...]] = {}
        for arm in arms:
            label, threshold = arm.label or arm.name, arm.as_dict().get("threshold")
            more = (float(threshold),) if isinstance(threshold, int | float) else ()
            known[label] = (*known.get(label, ()), *more)
        names = {part.name: section for section, parts in sections.items() for part in parts if part}
        built_in = {name: kind for kind in (*sections, "strategy") for name in catalogue(kind)}
        return cls(known, names, built_in, options or {})

    def strategy(self, name: str) -> str | None:
        """Return the label that a name refers to: the name itself, or that of its only variant with options."""
        if name in self.thresholds:
            return name
        found = [label for label in self.thresholds if label.partition("(")[0] == name]
        if len(found) == 1 or self.built_in.get(name) != "strategy":
            return found[0] if len(found) == 1 else None
        return name

    def section(self, text: str) -> tuple[str, str] | None:
        """Return the section and the name at the start of a text: the optimizer adam for `adam.norm`."""
        for names in (self.sections, self.built_in):
            for name, section in names.items():
                if section != "strategy" and (text == name or text.startswith(f"{name}.")):
                    return section, name
        return None

    def column(self, name: str) -> str:
        """Return the column of an option, given in full or by its last part: `l2` for `train.l2`."""
        found = [column for column in self.options if column == name or column.endswith(f".{name}")]
        if name in found or len(found) == 1:
            return name if name in found else found[0]
        if found:
            raise InvalidValue(f"{name!r} is ambiguous: it may be {' or '.join(found)}.", "Write the full name.")
        raise InvalidValue(f"unknown option {name!r}.", did_you_mean(name, self.options))

    def missing(self, side: Side) -> str:
        """Return why no arm of this experiment matches a side; empty if one does."""
        for name, value in side.options:
            if not any(same_value(known, value) for known in self.options[name]):
                return f"{name} has no value {value} here, only {', '.join(self.options[name])}."
        absent = [name for _, name in side.where if name not in self.sections]
        if side.strategy and side.strategy not in self.thresholds:
            absent.append(side.strategy)
        if absent:
            return f"{', '.join(absent)} is not in this experiment."
        known = self.thresholds.get(side.strategy, ())
        if side.threshold is None or any(_same(each, side.threshold) for each in known):
            return ""
        listed = ", ".join(f"{each:.6g}" for each in known) or "none"
        return f"{side.strategy} has no threshold {side.threshold:g} here, only {listed}."

    def known(self) -> list[str]:
        return [*self.thresholds, *self.sections]


def option_values(parts: Mapping[str, Sequence[Any]], training: Sequence[Training]) -> dict[str, tuple[str, ...]]:
    """Return the values of all options except those of arms, by column."""
    sections: dict[str, Sequence[Any]] = {
        "data": parts.get("data") or (None,),
        "model": parts.get("model", (NOTHING,)),
        "optimizer": parts.get("optimizer", (NOTHING,)),
        "train": training,
        "script": parts.get("train", (None,)),
    }
    first: dict[str, Any] = {name: found[0] for name, found in sections.items()}
    values: dict[str, dict[str, None]] = {}
    for name, found in sections.items():
        for each in found:
            for column, value in Trial(**(first | {name: each}), clip=parts["clip"][0], seed=0).columns().items():
                # Without an optimizer, as in a script, `lr` may be an option of another section.
                short = column == "lr" and value is not None
                if short or (column.partition(".")[0] in sections and "." in column):
                    values.setdefault(column, {})[f"{value:.6g}" if isinstance(value, float) else str(value)] = None
    return {column: tuple(found) for column, found in values.items()}


def read(text: str, vocabulary: Vocabulary) -> Expectation:
    """Return the expectation; raise InvalidValue for a word that is wrong."""
    text = text.strip()
    inner = ALWAYS.fullmatch(text)
    left, relation, right = _split(inner[1] if inner else text)
    found = Expectation(_side(left, vocabulary), relation, _side(right, vocabulary), inner is not None)
    if bool(found.left.minus) != bool(found.right.minus):
        raise InvalidValue(
            "a difference can only be compared with a difference.", "Write (norm - none) > (value - none)."
        )
    if found.left.minus and found.always:
        raise InvalidValue("`always` does not support differences.", HOW)
    if found.left.arms == found.right.arms:
        raise InvalidValue(f"both sides name the same arms, got {text!r}.", HOW)
    if found.left.measure and found.right.measure:
        raise InvalidValue("one side must name arms, but both name a measure.", HOW)
    return found


def _split(text: str) -> tuple[str, str, str]:
    """Split at the relation sign: `norm(per=tensor) > none[train.l2=0]`."""
    places = [place for place in _outside(text) if text[place] in RELATIONS]
    if len(places) != 1:
        raise InvalidValue(f"expected two sides with one of >, < and = between them, got {text!r}.", HOW)
    (place,) = places
    left, right = text[:place].strip(), text[place + 1 :].strip()
    if not left or not right:
        raise InvalidValue(f"a side is missing in {text!r}.", HOW)
    return left, text[place], right


def _side(text: str, vocabulary: Vocabulary) -> Side:
    arms, options = _options(text, vocabulary)
    if arms.startswith("("):
        return replace(_difference(arms, vocabulary), text=text, options=options)
    rest, where = arms, []
    while rest and vocabulary.strategy(_name(rest)) is None:
        found = vocabulary.section(rest)
        if found is None and rest == arms and is_measure(rest):
            return Side(text, options=options, measure=rest)
        if found is None:
            raise InvalidValue(f"unknown {_name(rest)!r} in a claim.", did_you_mean(_name(rest), vocabulary.known()))
        where.append(found)
        rest = rest[len(found[1]) + 1 :]
    name = _name(rest)
    threshold = float(rest[len(name) + 1 :]) if name != rest else None
    return Side(text, vocabulary.strategy(name) or "", threshold, tuple(sorted(where)), options)


def _options(text: str, vocabulary: Vocabulary) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Split `none[train.l2=0.001]` into the name and the text in brackets."""
    depths = itertools.accumulate((sign == "]") - (sign == "[") for sign in reversed(text))
    start = len(text) - 1 - next((back for back, depth in enumerate(depths) if depth == 0), len(text))
    if start <= 0 or not text.endswith("]"):
        return text, ()
    pairs = [part.partition("=") for part in _parts(text[start + 1 : -1], ",")]
    if any(not sign or not value.strip() for _, sign, value in pairs):
        raise InvalidValue(f"expected options such as [train.l2=0.001], got {text[start:]}.", HOW)
    return text[:start].strip(), tuple((vocabulary.column(name.strip()), value.strip()) for name, _, value in pairs)


def _difference(text: str, vocabulary: Vocabulary) -> Side:
    """Parse `(norm - none)`: two arms in the same settings."""
    parts = _parts(text[1:-1], " - ") if text.endswith(")") else []
    if len(parts) != 2:
        raise InvalidValue(f"expected a difference such as (norm - none), got {text!r}.", HOW)
    left, base = (_side(part.strip(), vocabulary) for part in parts)
    if not left.strategy or not base.strategy or base.where or left.where or left.options or base.options:
        raise InvalidValue(f"a difference takes two strategies, got {text!r}.", "Write (norm - none)[train.l2=0.001].")
    return replace(left, minus=base)


def _outside(text: str) -> list[int]:
    """Return the places outside of brackets, and those of brackets that close the outermost ones."""
    depths = itertools.accumulate((sign in "([") - (sign in ")]") for sign in text)
    return [place for place, depth in enumerate(depths) if depth == 0]


def _parts(text: str, separator: str) -> list[str]:
    """Split at separators outside of brackets."""
    cuts = [place for place in _outside(text) if text.startswith(separator, place)]
    starts = [0, *(cut + len(separator) for cut in cuts)]
    return [text[start:end] for start, end in zip(starts, [*cuts, len(text)], strict=True)]


def _name(text: str) -> str:
    """Return the name without the threshold."""
    head, _, tail = text.rpartition("@")
    try:
        float(tail)
    except ValueError:
        return text
    return head or text


def _same(threshold: float, wanted: float) -> bool:
    """Whether two thresholds are equal, up to the digits that tables show."""
    return threshold == wanted or f"{threshold:.3g}" == f"{wanted:.6g}"


def same_value(one: object, other: str) -> bool:
    """Whether a value equals its text in a claim: 0.1 equals 1e-1, True equals true, [64] equals [ 64 ]."""
    try:
        return float(str(one)) == float(other)
    except ValueError:
        return str(one).replace(" ", "").lower() == other.replace(" ", "").lower()
