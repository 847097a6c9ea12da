"""What a claim expects, read from its words: `zero > value`, `adam.norm@1.0 = adam.none`, `always(skip = none)`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from clipbench.names import did_you_mean
from clipbench.registry import catalogue
from clipbench.spec.values import Misfit
from clipbench.trial import Component

RELATIONS = "><="
ALWAYS = re.compile(r"always\s*\((.*)\)", re.DOTALL)
HOW = "Write for example `norm > none`, `adam.norm@1.0 = adam.none` or `always(skip = none)`."


@dataclass(frozen=True)
class Side:
    """Arms of an experiment: a strategy or all of them, at one threshold or its best, in all settings or some."""

    text: str
    strategy: str = ""
    threshold: float | None = None
    where: tuple[tuple[str, str], ...] = ()  # section and name: ("optimizer", "adam")

    def holds(self, strategy: str, threshold: float | None) -> bool:
        """Whether an arm is meant. `norm` is `norm` with other options too, where there is no plain one."""
        if self.strategy and strategy != self.strategy:
            return False
        return self.threshold is None or (threshold is not None and _same(threshold, self.threshold))


@dataclass(frozen=True)
class Expectation:
    """`left` stands to `right` as the relation says: > is better, < is worse, = is within the margin.

    `always` asks for it in every setting, at every threshold and on every seed, else on average at the best threshold.
    """

    left: Side
    relation: str
    right: Side
    always: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """The names that claims may use: those of the experiment, and the built-in ones that `--set` may have left out."""

    thresholds: Mapping[str, tuple[float, ...]]  # of each strategy of the experiment
    sections: Mapping[str, str] = field(default_factory=dict)  # of the names of its data, models and optimizers
    elsewhere: Mapping[str, str] = field(default_factory=dict)  # of built-in names, by kind

    @classmethod
    def of(cls, arms: Iterable[Component], sections: Mapping[str, Iterable[Component | None]]) -> Vocabulary:
        known: dict[str, tuple[float, ...]] = {}
        for arm in arms:
            label, threshold = arm.label or arm.name, arm.as_dict().get("threshold")
            more = (float(threshold),) if isinstance(threshold, int | float) else ()
            known[label] = (*known.get(label, ()), *more)
        names = {part.name: section for section, parts in sections.items() for part in parts if part}
        elsewhere = {name: kind for kind in (*sections, "strategy") for name in catalogue(kind)}
        return cls(known, names, elsewhere)

    def strategy(self, name: str) -> str | None:
        """The label that a name means: its own, or that of the only strategy of this name with options."""
        if name in self.thresholds:
            return name
        found = [label for label in self.thresholds if label.partition("(")[0] == name]
        if len(found) == 1 or self.elsewhere.get(name) != "strategy":
            return found[0] if len(found) == 1 else None
        return name

    def section(self, text: str) -> tuple[str, str] | None:
        """The section and the name that a text begins with: `adam.norm` with the optimizer adam."""
        for names in (self.sections, self.elsewhere):
            for name, section in names.items():
                if section != "strategy" and (text == name or text.startswith(f"{name}.")):
                    return section, name
        return None

    def missing(self, side: Side) -> str:
        """Why this experiment has nothing that a side names; empty if it has."""
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


def read(text: str, vocabulary: Vocabulary) -> Expectation:
    """The expectation, or a Misfit that says which word of it is wrong."""
    text = text.strip()
    inner = ALWAYS.fullmatch(text)
    left, relation, right = _split(inner[1] if inner else text)
    return Expectation(_side(left, vocabulary), relation, _side(right, vocabulary), inner is not None)


def _split(text: str) -> tuple[str, str, str]:
    """Around the relation, which is none of the signs within parentheses: `norm(per=tensor) > none`."""
    depth, places = 0, []
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0 and sign in RELATIONS:
            places.append(place)
    if len(places) != 1:
        raise Misfit(f"expected two sides and one of >, < and = between them, got {text!r}.", HOW)
    (place,) = places
    left, right = text[:place].strip(), text[place + 1 :].strip()
    if not left or not right:
        raise Misfit(f"a side is missing in {text!r}.", HOW)
    return left, text[place], right


def _side(text: str, vocabulary: Vocabulary) -> Side:
    rest, where = text, []
    while rest and vocabulary.strategy(_name(rest)) is None:
        found = vocabulary.section(rest)
        if found is None:
            raise Misfit(f"unknown {_name(rest)!r} in a claim.", did_you_mean(_name(rest), vocabulary.known()))
        where.append(found)
        rest = rest[len(found[1]) + 1 :]
    name = _name(rest)
    threshold = float(rest[len(name) + 1 :]) if name != rest else None
    return Side(text, vocabulary.strategy(name) or "", threshold, tuple(sorted(where)))


def _name(text: str) -> str:
    """Without the threshold."""
    head, _, tail = text.rpartition("@")
    try:
        float(tail)
    except ValueError:
        return text
    return head or text


def _same(threshold: float, wanted: float) -> bool:
    """Thresholds of a range are written as short as tables show them."""
    return threshold == wanted or f"{threshold:.3g}" == f"{wanted:.6g}"
