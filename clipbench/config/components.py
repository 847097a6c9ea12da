"""Read components: the name of a plug-in and its options, checked against its signature."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from clipbench.config.arm_options import FOLLOWING, available_arguments, conflicts
from clipbench.config.axes import Axis, OptionSpec, read_axis
from clipbench.config.component_options import SECTIONS, signature, why_unknown
from clipbench.config.group_options import GROUPS
from clipbench.config.values import is_plain, show
from clipbench.config.yaml_nodes import Node
from clipbench.core.trial import Component
from clipbench.errors import Findings, UnknownName, did_you_mean
from clipbench.plugins.registry import Plugin, catalogue, find

MOST_COMPONENTS = 10_000  # of a section, with all values of their options
CONSTANT = Component.of("constant", warmup=0)  # of a schedule the same as none
# Words for schedules of a threshold that are no plug-ins.
SCHEDULES = {None: CONSTANT} | {name: Component(name, label=name) for name in FOLLOWING}


@dataclass(frozen=True)
class Choice:
    """A component of the YAML: each option with all of its values."""

    key: str
    kind: str
    name: str
    source: str
    folder: str
    axes: tuple[tuple[str, Axis], ...]
    defaults: tuple[tuple[str, Any], ...]
    quiet: frozenset[str] = frozenset()  # options that are left out at their default
    aside: frozenset[str] = frozenset()  # options that change no number

    @property
    def plugin(self) -> Plugin:
        return find(self.kind, self.name, self.folder)

    @property
    def section(self) -> str:
        return self.key.partition("[")[0]

    @property
    def first(self) -> dict[str, Any]:
        """The first value of every option."""
        return {name: axis.values[0] for name, axis in self.axes}

    def values(self, option: str) -> tuple[Any, ...]:
        """Return the values of an option; empty if the component has none."""
        return dict(self.axes).get(option, Axis(())).values

    @property
    def size(self) -> int:
        return math.prod(len(axis.values) for _, axis in self.axes)

    def components(self) -> Iterator[Component]:
        """Yield every combination; the option that is written first varies slowest."""
        names = [name for name, _ in self.axes]
        for values in itertools.product(*(axis.values for _, axis in self.axes)):
            yield self.component(dict(zip(names, values, strict=True)))

    def component(self, options: Mapping[str, Any]) -> Component:
        """The component with these options, each of one value."""
        said = {name: value for name, value in options.items() if name not in self.quiet or self._differs(name, value)}
        own = options.keys() & self.plugin.options.keys() - said.keys()
        left_out = {name: options[name] for name in sorted(own)}
        aside = {name: said.pop(name) for name in self.aside & said.keys()}
        component = Component.with_options(self.name, said, self.source, self.folder, self.label(options), aside)
        return replace(component, left_out=tuple(left_out.items()))

    def label(self, options: Mapping[str, Any]) -> str:
        """Return the label: the name and the options that differ from their default, in the order of the YAML."""
        shown = [
            f"{name}={_shown(options[name])}"
            for name in dict.fromkeys([*(name for name, _ in self.axes), *options])
            if name in options and name not in {"threshold", "fold", *self.aside} and self._differs(name, options[name])
        ]
        return f"{self.name}({', '.join(shown)})" if shown else self.name

    def _differs(self, name: str, value: Any) -> bool:
        defaults = dict(self.defaults)
        return name not in defaults or bool(defaults[name] != value)


def read_choices(node: Node, kind: str, folder: str, findings: Findings, words: Iterable[str] = ()) -> list[Choice]:
    """Return the components of a section, which is one of them or a list; add mistakes in others to the findings.

    `words` are suggested too where a name is unknown.
    """
    if not node.items:
        findings.add(node.place, "the list is empty.", f"Name at least one {kind}.")
    found = []
    for entry in node.items:
        name, options = findings.attempt(partial(_name_and_options, entry, kind)) or (None, {})
        names = name.items or [name] if name else []
        found += [findings.attempt(partial(_choice, each, entry, options, kind, folder, words)) for each in names]
    choices = [choice for choice in found if choice]
    if (size := sum(choice.size for choice in choices)) > MOST_COMPONENTS:
        text = f"the options make {size:,} combinations, more than {MOST_COMPONENTS:,}."
        findings.add(node.place, text, "Use fewer values or points.")
        return []
    return choices


def read_component_axis(
    node: Node, kind: str, folder: str, special: Mapping[str | None, Component | None], words: Iterable[str] = ()
) -> Axis:
    """Return the values of an option that takes components; `special` names stand for one of them, or for none."""
    findings, found = Findings(), []
    if not node.items:
        findings.add(node.place, "the list is empty.", f"Name at least one {kind}.")
    for entry in node.items:
        value = entry.value
        name = value["name"].value if isinstance(value, dict) and list(value) == ["name"] else value
        if isinstance(name, str | None) and name in special:
            found.append(special[name])
        else:
            choices = read_choices(entry, kind, folder, findings, () if isinstance(value, list) else words)
            found += [component for choice in choices for component in choice.components()]
    if len(set(found)) < len(found):
        findings.add(node.place, f"duplicate {kind}.", "Keep one of them.")
    findings.raise_if_any()
    return Axis(tuple(found))


def _name_and_options(node: Node, kind: str) -> tuple[Node, dict[str, Node]]:
    if not isinstance(node.value, dict):
        return node, {}
    if "name" in node.value:
        return node.value["name"], {key: item for key, item in node.value.items() if key != "name"}
    keys = list(node.value)
    remedy = "Write {name: ..., and its options}."
    if len(keys) == 1 and (keys[0] in catalogue(kind) or isinstance(node.value[keys[0]].value, dict)):
        remedy = f"Write {{name: {keys[0]}, and its options}}."
    raise node.error(f"this {kind} has no `name`.", remedy)


def _choice(name: Node, node: Node, options: dict[str, Node], kind: str, folder: str, words: Iterable[str]) -> Choice:
    plugin = _find(name, kind, folder, words)
    specs = _signature(plugin, name)
    findings, given = Findings(), _flat(options, kind)
    meant = _refuse_unknown(plugin, given, specs, findings)
    axes = {}
    for option, item in given.items():
        if option in specs or plugin.open:
            spec = specs.get(option) or OptionSpec(option, infinite=True)
            if axis := findings.attempt(partial(_axis, item, spec, folder)):
                axes[option] = axis
    has_groups = kind == "strategy" and GROUPS in given.keys() & (specs.keys() - plugin.options.keys())
    if has_groups and "threshold" not in given:
        axes["threshold"] = Axis((1.0,))  # what the thresholds of groups are multiplied by
    for option, text, remedy in conflicts(plugin, axes) if kind == "strategy" else ():
        findings.add(given[option].key_place, text, remedy)
    _refuse_absent_files(plugin, given, axes, folder, findings)
    _refuse_missing(
        plugin, specs, [option for option in specs if option not in {*given, *axes, *meant}], node, findings
    )
    findings.raise_if_any()
    defaults = {spec.name: spec.default for spec in specs.values() if is_plain(spec.default)}
    # Of a section such as `corrupt`, either nothing is said or all of it: 0 beside 0.1 is a value like any other.
    spoken = {name.partition(".")[0] for name in given if "." in name}
    quiet = frozenset(name for name, spec in specs.items() if spec.quiet and name.partition(".")[0] not in spoken)
    for option, default in defaults.items():
        if option not in quiet:
            axes.setdefault(option, Axis((default,), takes_list=specs[option].takes_list))
    folds, fold = (axes.get(name, Axis((None,))).values for name in ("folds", "fold"))
    if isinstance(folds[0], int) and fold == (None,):  # `folds: 3` of data is the axis `fold: [0, 1, 2]`
        axes["fold"] = Axis(tuple(range(folds[0])))
    own_folder = folder if plugin.source or plugin.files or "yaml_folder" in plugin.given else ""
    return Choice(
        *(node.key, kind, plugin.name, plugin.source, own_folder, tuple(axes.items()), tuple(defaults.items())),
        quiet=quiet,
        aside=frozenset(name for name, spec in specs.items() if spec.aside),
    )


def _axis(node: Node, spec: OptionSpec, folder: str) -> Axis:
    if spec.axis:
        return spec.axis(node)
    if not spec.kind:
        return read_axis(node, spec)
    if spec.kind != "schedule":
        return read_component_axis(node, spec.kind, folder, {None: None})
    axis = read_component_axis(node, spec.kind, folder, SCHEDULES, FOLLOWING)
    return Axis(tuple(None if value == CONSTANT else value for value in axis.values))


def _refuse_absent_files(
    plugin: Plugin, given: Mapping[str, Node], axes: Mapping[str, Axis], folder: str, findings: Findings
) -> None:
    for name in plugin.files:
        for path in axes[name].values if name in axes else ():
            file = Path(folder, os.path.expanduser(str(path)))
            if path and not os.path.exists(file):
                near = sorted(each.name for each in file.parent.glob("*"))[:20]
                findings.add(given[name].place, f"there is no file {file}.", did_you_mean(file.name, near))


def _find(node: Node, kind: str, folder: str, words: Iterable[str]) -> Plugin:
    name = node.plain()
    if not isinstance(name, str) or not name:
        remedy = "Write none for no clipping." if kind == "strategy" and not name else ""
        raise node.error(f"expected the name of a {kind}, got {show(name)}.", remedy)
    try:
        plugin = find(kind, name, folder)
    except UnknownName as error:
        off = kind == "strategy" and name.lower() in ("off", "no", "null", "false")
        remedy = "Did you mean `none`?" if off else error.remedy
        if words and ":" not in name:
            remedy = did_you_mean(name, [*catalogue(kind), *words])
        raise node.error(error.text, remedy) from None
    except (OSError, ValueError) as error:  # a path that no file can have
        raise node.error(f"{show(name)} cannot be looked up: {error}.") from None
    except SystemExit:
        remedy = 'Move its main part under `if __name__ == "__main__"`.'
        raise node.error(f"cannot import {name!r}: it exits the program.", remedy) from None
    if kind == "strategy":
        _refuse_other_functions(plugin, node)
    return plugin


def _refuse_other_functions(plugin: Plugin, node: Node) -> None:
    """Check that a function declares `per`, and asks only for arguments that a rule is given."""
    if "per" not in plugin.facts:
        raise node.error(f"{node.value} does not declare `per`.", "Decorate it with @clipbench.strategy(per=...).")
    known = available_arguments(plugin.facts)
    asked = ", ".join(sorted(plugin.given - set(known)))
    if asked:
        where = f"{plugin.facts['per']}{' on weights' if plugin.facts.get('on') == 'weights' else ''}"
        text = f"{node.value} asks for {asked}, which a strategy per {where} is not given."
        raise node.error(text, f"Available arguments: {', '.join(known)}.")


def _signature(plugin: Plugin, node: Node) -> dict[str, OptionSpec]:
    try:
        return signature(plugin)
    except (ValueError, TypeError):  # some functions written in C do not say what they take
        text = f"the signature of {plugin.name!r} cannot be read."
        raise node.error(text, "Wrap it in a Python function.") from None


def _flat(options: dict[str, Node], kind: str) -> dict[str, Node]:
    """`split: {val: 0.2}` of a data set is its option `split.val`."""
    flat: dict[str, Node] = {}
    for name, item in options.items():
        if kind == "data" and name in SECTIONS and isinstance(item.value, dict):
            flat |= {f"{name}.{part}": value for part, value in item.value.items()}
        else:
            flat[name] = item
    return flat


def _refuse_unknown(
    plugin: Plugin, given: Mapping[str, Node], specs: Mapping[str, OptionSpec], findings: Findings
) -> set[str]:
    """Report unknown options; return the names that were probably meant."""
    meant = set()
    for option in given:
        if option not in specs and not plugin.open:
            text, remedy = why_unknown(plugin, option, specs)
            place = given[option].place if option in SECTIONS else given[option].key_place
            findings.add(place, text, remedy)
            meant |= {name for name in specs if f"mean `{name}`" in remedy}
    return meant


def _refuse_missing(
    plugin: Plugin, specs: Mapping[str, OptionSpec], options: list[str], node: Node, findings: Findings
) -> None:
    replaced = "threshold" if set(plugin.facts.get("instead", ())) - set(options) else ""
    missing = [f"`{option}`" for option in options if specs[option].required and option != replaced]
    if not missing:
        return
    low, high = plugin.facts.get("search") or (0.01, 100.0)
    example = f"Write a number, a list, or a range such as threshold: {{log: [{low:g}, {high:g}]}}."
    text = f"{plugin.name} needs {' and '.join(missing)}."
    findings.add(node.place, text, example if "`threshold`" in missing else "")


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_shown(item) for item in value)}]"
    if isinstance(value, Component):
        return value.label
    return value if isinstance(value, str) else show(value)
