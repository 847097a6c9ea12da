"""Read components: the name of a plug-in and its options, checked against its signature."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clipbench.config.arm_options import FOLLOWING, available_arguments, conflicts, why_missing
from clipbench.config.axes import Axis, OptionSpec, read_axis
from clipbench.config.options import FIXED, SECTIONS, is_plain, signature
from clipbench.config.values import show, validate
from clipbench.config.yaml_nodes import INVALID, Node
from clipbench.core.trial import Component
from clipbench.errors import Findings, UnknownName, did_you_mean
from clipbench.plugins.registry import Plugin, catalogue, find

CONSTANT = Component.of("constant", warmup=0)  # of a schedule the same as none


@dataclass(frozen=True)
class Choice:
    """A component of the YAML: each option with all of its values."""

    key: str
    name: str
    source: str
    folder: str
    axes: tuple[tuple[str, Axis], ...]
    defaults: tuple[tuple[str, Any], ...]
    quiet: frozenset[str] = frozenset()  # options that are left out at their default

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
        label = self.label(options)
        return Component.of(self.name, source=self.source, folder=self.folder, label=label, **said)

    def label(self, options: Mapping[str, Any]) -> str:
        """Return the label: the name and the options that differ from their default, in the order of the YAML."""
        shown = [
            f"{name}={_shown(options[name])}"
            for name in dict.fromkeys([*(name for name, _ in self.axes), *options])
            if name in options and name not in ("threshold", "fold") and self._differs(name, options[name])
        ]
        return f"{self.name}({', '.join(shown)})" if shown else self.name

    def _differs(self, name: str, value: Any) -> bool:
        defaults = dict(self.defaults)
        return name not in defaults or bool(defaults[name] != value)


def read_choices(node: Node, kind: str, folder: str, findings: Findings) -> list[Choice]:
    """The components of a section, which is one of them or a list."""
    entries = node.value if isinstance(node.value, list) else [node]
    if not entries:
        findings.add(node.place, "the list is empty.", f"Name at least one {kind}.")
    found = [choice for entry in entries for choice in _entry(entry, kind, folder, findings)]
    return [choice for choice in found if choice is not None]


def _entry(node: Node, kind: str, folder: str, findings: Findings) -> list[Choice | None]:
    name_node, options = _name_and_options(node, kind, findings)
    if name_node is None:
        return []
    names = name_node.value if isinstance(name_node.value, list) and name_node.value else [name_node]
    return [_choice(name, node, options, kind, folder, findings) for name in names]


def _name_and_options(node: Node, kind: str, findings: Findings) -> tuple[Node | None, dict[str, Node]]:
    if node.value is INVALID:
        return None, {}
    if not isinstance(node.value, dict):
        return node, {}
    if "name" in node.value:
        return node.value["name"], {key: item for key, item in node.value.items() if key != "name"}
    keys = list(node.value)
    remedy = "Write {name: ..., and its options}."
    if len(keys) == 1 and (keys[0] in catalogue(kind) or isinstance(node.value[keys[0]].value, dict)):
        remedy = f"Write {{name: {keys[0]}, and its options}}."
    findings.add(node.place, f"this {kind} has no `name`.", remedy)
    return None, {}


def _choice(
    name: Node, node: Node, options: dict[str, Node], kind: str, folder: str, findings: Findings
) -> Choice | None:
    plugin = _find(name, kind, folder, findings)
    specs = _signature(plugin, name, findings) if plugin else None
    if plugin is None or specs is None:
        return None
    before = len(findings.problems)
    given = _flat(options, kind)
    meant = _refuse_unknown(plugin, given, specs, findings)
    axes = _axes(given, specs, plugin, folder, findings)
    for option, text, remedy in conflicts(plugin, axes) if kind == "strategy" else ():
        findings.add(given[option].key_place, text, remedy)
    _refuse_absent_files(plugin, given, axes, folder, findings)
    _refuse_missing(plugin, [name for name in specs if name not in given and name not in meant], node, findings)
    if len(findings.problems) > before or len(axes) < len(given):
        return None
    defaults = {spec.name: spec.default for spec in specs.values() if is_plain(spec.default)}
    # Of a section such as `corrupt`, either nothing is said or all of it: 0 beside 0.1 is a value like any other.
    spoken = {name.partition(".")[0] for name in given if "." in name}
    quiet = frozenset(name for name, spec in specs.items() if spec.quiet and name.partition(".")[0] not in spoken)
    for option, default in defaults.items():
        if option not in quiet:
            axes.setdefault(option, Axis((default,), takes_list=specs[option].takes_list))
    _unfold(axes)
    own_folder = folder if plugin.source or plugin.files or "yaml_folder" in plugin.given else ""
    return Choice(node.key, plugin.name, plugin.source, own_folder, tuple(axes.items()), tuple(defaults.items()), quiet)


def _refuse_absent_files(
    plugin: Plugin, given: Mapping[str, Node], axes: Mapping[str, Axis], folder: str, findings: Findings
) -> None:
    for name in plugin.files:
        for path in axes[name].values if name in axes else ():
            file = Path(folder, os.path.expanduser(str(path)))
            if path and not file.exists():
                near = sorted(each.name for each in file.parent.glob("*"))[:20]
                findings.add(given[name].place, f"there is no file {file}.", did_you_mean(file.name, near))


def _unfold(axes: dict[str, Axis]) -> None:
    """`folds: 5` of data is the axis `fold: [0, 1, 2, 3, 4]`."""
    folds, fold = (axes.get(name, Axis((None,))).values for name in ("folds", "fold"))
    if isinstance(folds[0], int) and fold == (None,):
        axes["fold"] = Axis(tuple(range(folds[0])))


def _find(node: Node, kind: str, folder: str, findings: Findings) -> Plugin | None:
    if node.value is INVALID:
        return None
    if not isinstance(node.value, str) or not node.value:
        remedy = "Write none for no clipping." if kind == "strategy" and not node.value else ""
        findings.add(node.place, f"expected the name of a {kind}, got {show(node.plain())}.", remedy)
        return None
    try:
        plugin = find(kind, node.value, folder)
    except UnknownName as error:
        off = kind == "strategy" and node.value.lower() in ("off", "no", "null", "false")
        findings.add(node.place, error.text, "Did you mean `none`?" if off else error.remedy)
    except (OSError, ValueError) as error:  # a path that no file can have
        findings.add(node.place, f"{show(node.value)} cannot be looked up: {error}.")
    except SystemExit:
        text = f"cannot import {node.value!r}: it exits the program."
        findings.add(node.place, text, 'Move its main part under `if __name__ == "__main__"`.')
    else:
        if kind != "strategy" or _is_rule(plugin, node, findings):
            return plugin
    return None


def _is_rule(plugin: Plugin, node: Node, findings: Findings) -> bool:
    """Return whether a function declares `per` and asks only for available arguments; report it if not."""
    if "per" not in plugin.facts:
        text = f"{node.value} does not declare `per`."
        findings.add(node.place, text, "Decorate it with @clipbench.strategy(per=...).")
        return False
    known = available_arguments(plugin.facts)
    asked = sorted(plugin.given - set(known))
    if asked:
        where = " on weights" if plugin.facts.get("on") == "weights" else ""
        text = (
            f"{node.value} asks for {', '.join(asked)}, which a strategy per {plugin.facts['per']}{where} is not given."
        )
        findings.add(node.place, text, f"Available arguments: {', '.join(known)}.")
    return not asked


def _signature(plugin: Plugin, node: Node, findings: Findings) -> dict[str, OptionSpec] | None:
    try:
        return signature(plugin)
    except (ValueError, TypeError):  # some functions written in C do not say what they take
        text = f"the signature of {plugin.name!r} cannot be read."
        findings.add(node.place, text, "Wrap it in a Python function.")
        return None


def _flat(options: dict[str, Node], kind: str) -> dict[str, Node]:
    """`split: {val: 0.2}` of a data set is its option `split.val`."""
    flat: dict[str, Node] = {}
    for name, item in options.items():
        if kind == "data" and name in SECTIONS and isinstance(item.value, dict):
            flat |= {f"{name}.{part}": value for part, value in item.value.items()}
        else:
            flat[name] = item
    return flat


def _axes(
    given: Mapping[str, Node], specs: Mapping[str, OptionSpec], plugin: Plugin, folder: str, findings: Findings
) -> dict[str, Axis]:
    """The values of every option that is known, or that an open plug-in takes without naming it."""
    anything = partial(validate, annotation=Any, infinite=True)
    known = {name: specs.get(name) or OptionSpec(name, anything) for name in given if name in specs or plugin.open}
    axes = {
        name: _schedules(given[name], folder, findings) if spec.kind else read_axis(given[name], spec, findings)
        for name, spec in known.items()
    }
    return {name: axis for name, axis in axes.items() if axis is not None}


def _schedules(node: Node, folder: str, findings: Findings) -> Axis | None:
    """Read the schedules of a threshold; None stands for a constant one."""
    before, found = len(findings.problems), []
    for entry in node.value if isinstance(node.value, list) else [node]:
        name = entry.value
        if name in FOLLOWING or name is None:
            found.append(Component(name, label=name) if name else None)
        elif isinstance(name, str) and name not in catalogue("schedule") and ":" not in name:
            remedy = did_you_mean(name, [*catalogue("schedule"), *FOLLOWING])
            findings.add(entry.place, f"unknown schedule {name!r}.", remedy)
        else:
            read = [one for choice in read_choices(entry, "schedule", folder, findings) for one in choice.components()]
            found += [None if one == CONSTANT else one for one in read]
    if len(set(found)) < len(found):
        findings.add(node.place, "duplicate schedule.", "Keep one of them.")
    return Axis(tuple(found)) if len(findings.problems) == before else None


def _refuse_unknown(
    plugin: Plugin, given: Mapping[str, Node], specs: Mapping[str, OptionSpec], findings: Findings
) -> set[str]:
    """Report unknown options; return the names that were probably meant."""
    meant = set()
    for option in given:
        if option not in specs and not plugin.open:
            text, remedy = _why_unknown(plugin, option, specs)
            place = given[option].place if option in SECTIONS else given[option].key_place
            findings.add(place, text, remedy)
            meant |= {name for name in specs if f"mean `{name}`" in remedy}
    return meant


def _why_unknown(plugin: Plugin, option: str, specs: Mapping[str, OptionSpec]) -> tuple[str, str]:
    if plugin.is_stream and option in FIXED:
        return f"{plugin.name} is a stream, which does not support `{option}`.", ""
    if plugin.kind == "strategy" and (text := why_missing(plugin, option)):
        return text, ""
    if option in SECTIONS and plugin.kind == "data":
        return "expected a mapping.", SECTIONS[option]
    if not specs:
        return f"{plugin.name} takes no options.", ""
    section = option.rpartition(".")[0]
    known = [name for name in specs if name.rpartition(".")[0] == section]
    known += list(SECTIONS) if plugin.kind == "data" and not section else []
    return f"{plugin.name} has no option {option!r}.", did_you_mean(option, known)


def _refuse_missing(plugin: Plugin, options: list[str], node: Node, findings: Findings) -> None:
    specs = signature(plugin)
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
