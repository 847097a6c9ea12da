"""YAML text as plain values, each with the place where a user wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

from clipbench.config.values import InvalidValue, printable, show
from clipbench.config.yaml_scalars import TAG, add_core_schema, scalar
from clipbench.errors import Findings, InputError, Place

T = TypeVar("T")

# An experiment is one page that a person reads; what is far beyond one is a mistake or an attack.
MOST_VALUES = 50_000  # every alias counted as often as it is used
MOST_CHARACTERS = 1_000_000  # of all values, counted so too
LONGEST_KEY = 200  # every value below has it in its own key
DEEPEST = 40


@dataclass(frozen=True)
class Node:
    """A value of the YAML and its place: a scalar, a list of nodes or a mapping of nodes.

    The value of a scalar that could not be read is the InputError that says why; `plain` raises it.
    """

    value: Any
    place: Place
    key_place: Place  # of the key that it belongs to, or else its own

    @property
    def key(self) -> str:
        return self.place.key

    @property
    def items(self) -> list[Node]:
        """The nodes of a list, or the single one that stands for a list of one."""
        return self.value if isinstance(self.value, list) else [self]

    def plain(self) -> Any:
        """Return the value without places; raise InputError if any part of it could not be read."""
        if isinstance(self.value, InputError):
            raise self.value
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        return self.value

    def read(self, validate: Callable[[Any], T]) -> T:
        """Return what `validate` makes of the plain value; if it raises InvalidValue, say so at this place."""
        value = self.plain()
        try:
            return validate(value)
        except InvalidValue as invalid:
            raise self.error(invalid.text, invalid.remedy) from None

    def error(self, text: str, remedy: str = "") -> InputError:
        return InputError.at(self.place, text, remedy)

    def key_error(self, text: str, remedy: str = "") -> InputError:
        return InputError.at(self.key_place, text, remedy)

    def walk(self) -> Iterator[Node]:
        yield self
        children = self.value.values() if isinstance(self.value, dict) else self.value
        for child in children if isinstance(self.value, dict | list) else ():
            yield from child.walk()


# Other names are quoted where they are part of a path: `sweep.search."optimizer.lr"`.
_PLAIN = re.compile(r'[^.\[\]"=]*')


def child_key(parent: str, name: str | int) -> str:
    """The key path of a part, as a user would write it: `clip[1].threshold`."""
    if isinstance(name, int):
        return f"{parent}[{name}]"
    if not _PLAIN.fullmatch(name):
        name = f'"{name}"'
    return f"{parent}.{name}" if parent else name


def parse(text: str, file: str, findings: Findings, *, key: str = "", lines: bool = True) -> Node:
    """The text's values and places. Syntax that cannot be read stops at once; other mistakes are gathered.

    `lines=False` is for text that is no file (`--set`), whose place is its own words.
    """
    root = _compose(text, file, key, lines)
    if root is None:
        place = Place(file, 1, 1) if lines else Place(file, key=key)
        return Node(None, place, place)
    return _Reader(file, findings, lines).node(root, key, None, ())


_Base: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class _Loader(_Base):  # type: ignore[misc]
    """Only composes nodes; no constructor of PyYAML's is ever called."""


add_core_schema(_Loader)


def _compose(text: str, file: str, key: str, lines: bool) -> yaml.Node | None:
    def place(mark: Any) -> Place:
        return Place(file, mark.line + 1, mark.column + 1) if lines and mark else Place(file, key=key)

    try:
        _refuse_nesting(text, place)
        composed: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        if "nesting depth" in str(error.problem):  # a limit of newer versions of libyaml, met while it reads ahead
            _refuse_nesting(text, place, yaml.BaseLoader)
        # What is never closed is a mistake where it was opened, not at the end of the file.
        open_ended = "end of stream" in str(error.problem) and error.context_mark
        mark = error.context_mark if open_ended else error.problem_mark or error.context_mark
        raise InputError.at(place(mark), *_syntax(error, text)) from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise InputError.at(Place(file, key=key), f"invalid YAML: {' '.join(str(error).split())}.") from None
    return composed


def _refuse_nesting(text: str, place: Any, loader: Any = None) -> None:
    """Limit the depth before PyYAML composes the nodes, which it does by recursion."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=loader or _Loader):
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise InputError.at(
                place(event.start_mark), f"lists and mappings are nested more than {DEEPEST} levels deep."
            )
        if documents > 1:
            raise InputError.at(
                place(event.start_mark),
                "found a second document.",
                "Write each experiment in its own file.",
            )


def _syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[str, str]:
    problem = str(error.problem or error.context)
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "this line is indented with a tab.", "Use spaces."
    if "cannot start any token" in problem and mark and line[mark.column : mark.column + 1] in ("@", "`", "%"):
        return f"an unquoted string cannot start with {line[mark.column]}.", "Put it in quotes."
    if "mapping values are not allowed" in problem:
        return (
            "unexpected colon.",
            "Check the indentation, and quote strings that contain a colon.",
        )
    if problem.startswith("found undefined alias"):
        return f"{problem.removeprefix('found ')}.", "An alias `*x` needs its anchor `&x` above it."
    context = f", {error.context}" if error.context and error.context != problem else ""
    return f"invalid YAML: {problem}{context}.", ""


class _Reader:
    """PyYAML's nodes as Nodes, with mistakes gathered on the way."""

    def __init__(self, file: str, findings: Findings, lines: bool) -> None:
        self.file = file
        self.findings = findings
        self.lines = lines
        self.count = self.characters = 0

    def place(self, node: yaml.Node, key: str) -> Place:
        if not self.lines:
            return Place(self.file, key=key)
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1, key)

    def node(self, source: yaml.Node, key: str, key_place: Place | None, above: tuple[int, ...]) -> Node:
        place = self.place(source, key)
        self.count += 1
        self.characters += len(source.value) if isinstance(source, yaml.ScalarNode) else 0
        if self.count > MOST_VALUES or self.characters > MOST_CHARACTERS:
            what = f"{MOST_VALUES:,} values" if self.count > MOST_VALUES else f"{MOST_CHARACTERS:,} characters"
            remedy = "Make the experiment smaller."
            raise InputError.at(place, f"more than {what}, counting each use of an alias.", remedy)
        try:
            value = self._value(source, key, above)
        except InvalidValue as invalid:
            value = InputError.at(place, invalid.text, invalid.remedy)
            self.findings.problems += value.problems
        return Node(value, place, key_place or place)

    def _value(self, source: yaml.Node, key: str, above: tuple[int, ...]) -> Any:
        kind = source.tag.removeprefix(TAG)
        if id(source) in above:
            raise InvalidValue("this alias refers to a value that contains it.", "Remove the alias.")
        above = (*above, id(source))
        if isinstance(source, yaml.ScalarNode) and kind in ("null", "bool", "int", "float", "str", "!"):
            return scalar(kind, printable(source.value))
        if isinstance(source, yaml.SequenceNode) and kind == "seq":
            items = enumerate(source.value)
            return [self.node(item, child_key(key, index), None, above) for index, item in items]
        if isinstance(source, yaml.MappingNode) and kind == "map":
            return self._mapping(source, key, above)
        shown = source.tag.replace(TAG, "!!")
        raise InvalidValue(f"the tag {shown} is not supported.", "Write plain strings, numbers and lists.")

    def _mapping(self, source: yaml.MappingNode, parent: str, above: tuple[int, ...]) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for key_node, value_node in source.value:
            try:
                name = _name(key_node)
            except InvalidValue as invalid:
                self.findings.add(self.place(key_node, parent), invalid.text, invalid.remedy)
                continue
            key = child_key(parent, name)
            place = self.place(key_node, key)
            if name in nodes:
                first = nodes[name].key_place
                where = f" at line {first.line}, column {first.column}" if first.line else ""
                self.findings.add(place, f"duplicate key {name!r}, first{where}.", "Keep one of them.")
                continue
            nodes[name] = self.node(value_node, key, place, above)
        return nodes


def _name(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise InvalidValue("a list or mapping cannot be a key.", "Write a name.")
    if node.value == "<<":
        raise InvalidValue("merge keys `<<` are not supported.", "Write out the options.")
    if node.tag != TAG + "str":
        shown = node.value or "nothing"
        raise InvalidValue(f"keys must be strings, got {shown}.", "Put it in quotes if it is a name.")
    if len(node.value) > LONGEST_KEY:
        text = f"a key has at most {LONGEST_KEY} characters, got {show(node.value)}."
        raise InvalidValue(text, "Use a shorter name.")
    return printable(str(node.value))
