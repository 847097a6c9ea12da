"""Read `sweep.search`: paths of options, checked against the components that have them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from clipbench.config.axes import KINDS as RANGES
from clipbench.config.axes import OptionSpec, Range, frozen, is_range, read_axis, read_range
from clipbench.config.component_options import signature
from clipbench.config.components import Choice
from clipbench.config.group_options import GROUPS
from clipbench.config.optimizer_check import refusal
from clipbench.config.sections import options_of
from clipbench.config.values import InvalidValue, show
from clipbench.config.yaml_nodes import Node
from clipbench.core.trial import ARM_OPTIONS
from clipbench.errors import Findings, did_you_mean, gather

SEARCHED = ("optimizer", "train", "clip")  # sections with options that can be searched: `train` if it names a script
OTHERS = ("data", "model", "train")
PATH = re.compile(r"((optimizer|train|clip)(?:\[\d{1,6}\])?)\.(.+)")

Space = Range | tuple[Any, ...]
Choices = Mapping[str, Sequence[Choice]]


@dataclass(frozen=True)
class SearchedOption:
    """One option of a component that is searched."""

    key: str  # path in the YAML, as `--set` takes it
    space: Space  # with values of the option's type


def searched_options(choice: Choice, search: Mapping[str, Space]) -> dict[str, SearchedOption]:
    """Return the options of one component that `sweep.search` names; a path with an index takes precedence."""
    own = _own_options(choice)
    found: dict[str, SearchedOption] = {}
    for path, space in sorted(search.items(), key=lambda item: "[" in item[0]):
        where, option = _parts(path)
        if where in (choice.section, choice.key) and option in own:
            found[option] = SearchedOption(f'sweep.search."{path}"', _validated_space(space, own[option]))
    return found


def read_search(node: Node, choices: Choices, elsewhere: Findings, findings: Findings) -> dict[str, Space]:
    """Return a range or a tuple of values for each option path; add mistakes to the findings.

    An option may be missing only because its component could not be read, which `elsewhere` holds.
    """
    found: dict[str, Space] = {}
    for path, item in (findings.attempt(partial(options_of, node)) or {}).items():
        where, option = _parts(path)
        section = _section(where)
        if not where or (section == "train" and "train" not in choices):
            findings.add(item.key_place, *_no_path(path, choices))
            continue
        if section == "optimizer" and "train" in choices:
            text = "a script makes its own optimizer, so this option is not searched."
            findings.add(item.key_place, text, f"Write train.{option}, an argument of the script.")
            continue
        named = [choice for choice in choices.get(section, ()) if where in (section, choice.key)]
        having = [(choice, own[option]) for choice in named if option in (own := _own_options(choice))]
        if not having and choices.get(section) and not elsewhere.has_problem_in(section):
            findings.add(item.key_place, *_unknown_option(path, choices[section], named))
        space = findings.attempt(partial(_space, item, having))
        if space is not None:
            found[path] = space
    return found


def takes(choice: Choice, option: str, value: float) -> bool:
    """Whether a component accepts a value of an option."""
    try:
        _own_options(choice)[option].validate(value)
    except InvalidValue:
        return False
    return choice.section != "optimizer" or not refusal(choice.plugin, choice.first | {option: value})


def _parts(path: str) -> tuple[str, str]:
    """Split `clip[2].window` into `clip[2]` and `window`; return two empty strings if it is not such a path."""
    found = PATH.fullmatch(path)
    return (found[1], found[3]) if found else ("", "")


def _section(where: str) -> str:
    return where.partition("[")[0]


def _own_options(choice: Choice) -> dict[str, OptionSpec]:
    """Return the options of a component's own function, without those that clipbench adds."""
    plugin = choice.plugin
    specs = {name: spec for name, spec in signature(plugin).items() if name in plugin.options}
    written = dict(choice.axes)
    if plugin.open:
        specs |= {name: OptionSpec(name, infinite=True) for name in written if name not in signature(plugin)}
    # Other options replace the threshold.
    return {name: spec for name, spec in specs.items() if name != "threshold" or name in written}


def _validated_space(space: Space, spec: OptionSpec) -> Space:
    """Return the space with its values validated by the option."""
    if isinstance(space, Range):
        return replace(space, integer=spec.integer)
    return tuple(spec.validate(value) for value in _thawed(space))


def _thawed(space: Iterable[Any]) -> Iterator[Any]:
    """Yield values as in YAML, with tuples as lists."""
    for value in space:
        yield list(_thawed(value)) if isinstance(value, tuple | list) else value


def _no_path(path: str, choices: Choices) -> tuple[str, str]:
    section = re.split(r"[.\[]", path)[0]
    if section in OTHERS:
        text = f"{path} cannot be searched: each of its values is a setting of its own."
        return text, "Write its values as a list in that section."
    known = list(dict.fromkeys(itertools.chain.from_iterable(_paths(choices, section) for section in SEARCHED)))
    ends = [each for each in known if each.endswith(f".{path}")]
    remedy = f"Did you mean `{ends[0]}`?" if ends else did_you_mean(path, known)
    return f"{path!r} is not the path of an option.", remedy


def _paths(choices: Choices, section: str) -> Iterator[str]:
    for choice in choices.get(section, ()):
        yield from (f"{section}.{option}" for option in _own_options(choice))


def _unknown_option(path: str, choices: Sequence[Choice], named: Sequence[Choice]) -> tuple[str, str]:
    where, option = _parts(path)
    section = _section(where)
    if not named:
        keys = list(dict.fromkeys(choice.key for choice in choices))
        return f"there is no {where}.", f"Known: {', '.join(keys)}."
    if section == "clip" and option in ARM_OPTIONS:
        return f"`{option}` cannot be searched: each of its values is an arm of its own.", "Write its values as a list."
    if section == "optimizer" and option == GROUPS:
        text = "`groups` cannot be searched: each of its values is a setting of its own."
        return text, "Write several lists of groups in a list."
    names = list(dict.fromkeys(choice.name for choice in named))
    missing = f"{names[0]} has no" if len(names) == 1 else f"none of {', '.join(names)} has an"
    known = dict.fromkeys(itertools.chain.from_iterable(_own_options(choice) for choice in named))
    return f"{missing} option {option!r}.", did_you_mean(option, known) if known else ""


def _space(node: Node, having: Sequence[tuple[Choice, OptionSpec]]) -> Space:
    """Return the search space of an option of these components."""
    plain = node.plain()
    if not is_range(node) and not isinstance(node.value, list):
        text = f"expected a range or a list of values, got {show(plain)}."
        raise node.error(text, "Write {log: [0.01, 1]}.")
    space = _read_range(node, having) if is_range(node) else _read_values(node, having)
    gather(lambda pair: _try_optimizer(*pair, node), having)
    return space


def _read_range(node: Node, having: Sequence[tuple[Choice, OptionSpec]]) -> Range:
    findings = Findings()
    if "points" in node.value:
        text = "a searched range has no points: any value of it may be tried."
        findings.add(node.value["points"].key_place, text, "Remove it.")
    found = findings.attempt(partial(read_range, node))
    for (_, spec), end in itertools.product(having, _values(node) if found else ()):
        findings.attempt(partial(end.read, spec.validate))
    findings.raise_if_any()
    assert found  # or there was a problem
    return found


def _read_values(node: Node, having: Sequence[tuple[Choice, OptionSpec]]) -> tuple[Any, ...]:
    for item in node.value:
        if isinstance(item.value, dict):
            raise item.error(f"expected a value, got {show(item.plain())}.", "Write a range outside of a list.")
    if len(node.value) < 2:
        text = f"expected at least two values, got {show(node.plain())}."
        raise node.error(text, "Write a range or several values.")

    def check(pair: tuple[Choice, OptionSpec]) -> None:
        values = read_axis(node, replace(pair[1], takes_list=False)).values
        if pair[1].name == "threshold" and None in values:
            raise node.value[values.index(None)].error("a searched threshold cannot be null.", "Remove it.")

    gather(check, having)
    return tuple(frozen(node.plain()))


def _values(node: Node) -> list[Node]:
    """Return the values in the YAML: all of a list, the ends of a range."""
    ends = node if isinstance(node.value, list) else next(node.value[kind] for kind in RANGES if kind in node.value)
    return list(ends.value)


def _try_optimizer(choice: Choice, spec: OptionSpec, node: Node) -> None:
    """Report values that an optimizer's constructor rejects, if it accepts those of the YAML."""
    if choice.section != "optimizer":
        return

    def check(item: Node) -> None:
        if said := refusal(choice.plugin, choice.first | {spec.name: spec.validate(item.plain())}):
            raise item.error(said)

    gather(check, _values(node) if not refusal(choice.plugin, choice.first) else ())
