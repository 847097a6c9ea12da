"""Experiments as YAML text, made from the schema and from the files of `experiments/`, and then spoilt in a few places."""

import json
import math
import re
from functools import cache
from pathlib import Path

import yaml

from clipbench.config.json_schema import experiment_schema

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
LONG = "x" * 5000
WORDS = [
    "", " ", "none", "null", "auto", "full", "output", "median", "lr", "norm", "NaN", "../..", "/dev/zero", "~", "a\nb",
    "\x1b[31m", "\0", "\u202e", "é", "🙂", "<script>", "[red]", "=1+1", "%s{}", "\\input{x}", "os:system", "builtins:exec",
    "./x.py:f", "./../../x.py:f", "a.b:c", ":", "::", "torch.nn:Linear", "clip[1].threshold", "optimizer.lr", "clip.p",
    "train.epochs", "val/loss", "test/", "/", "norm > none", "norm@1 > none", "((norm - none) > x", "norm[", "1h", "-3s",
    LONG,
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 3, 7, 1000, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63), 10**30, 0.5, 0.1, -0.0, 1e-300, 1e300, -1e308,
    5e-324, math.inf, -math.inf, math.nan, True, False, None,
]  # fmt: skip
RANGES = [
    {"log": [1e-3, 1]},
    {"linear": [0, 1], "points": 3},
    {"log": [1e-300, 1e300]},
    {"log": [0, 1]},
    {"linear": []},
]
# Pieces of YAML that are put anywhere into the text.
PIECES = [
    "\t", "\n", "\n  ", "- ", ": ", "? ", "*a", "&a ", "!!int ", "!!python/object:os.system ", "<<: ", "{", "}", "[", "]",
    "'", '"', "#", "|\n", ">\n", "---\n", "...\n", "%YAML 1.2\n", "\x00", "\x85", "\ufeff", "\u2028", "9" * 5000, "1e400",
]  # fmt: skip


def experiment_text(random):
    """One experiment as YAML: at times a right one, mostly one with a few mistakes of any kind."""
    document = _from_schema(random) if random.random() < 0.6 else random.choice(_written())
    for _ in range(random.choice((0, 1, 1, 1, 2, 3, 6))):
        document = _spoilt(document, random)
    text = _as_text(document, random)
    return _cut(text, random) if random.random() < 0.15 else text


@cache
def _schema():
    return experiment_schema()


@cache
def _written():
    """The experiments of the repository, which no caller changes."""
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(EXPERIMENTS.rglob("*.yaml"))]
    return [each for each in found if isinstance(each, dict)]


def _from_schema(random):
    properties = _schema()["properties"]
    optional = [
        name for name in ("name", "data", "train", "seeds", "report", "sweep", "claims") if random.random() < 0.5
    ]
    return {name: _value(properties[name], random, 0) for name in ("model", "optimizer", "clip", *optional)}


def _value(schema, random, depth):
    """A value that a schema allows, or nearly."""
    if "$ref" in schema:
        return _value(_schema()["$defs"][schema["$ref"].rpartition("/")[2]], random, depth)
    if "const" in schema or "enum" in schema:
        return random.choice([schema["const"]] if "const" in schema else schema["enum"])
    if "default" in schema and random.random() < 0.1:
        return schema["default"]
    if "anyOf" in schema:
        shallow = [each for each in schema["anyOf"] if depth < 6 or each.get("type") != "array"]
        return _value(random.choice(shallow or schema["anyOf"]), random, depth + 1)
    kind = schema.get("type")
    if kind == "object":
        return _mapping(schema, random, depth)
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})] * random.choice((1, 1, 2, 2, 3))
        return [_value(each, random, depth + 1) for each in items]
    if kind == "integer":
        return random.choice((0, 1, 2, 3, 10, 100))
    if kind == "number":
        return random.choice((0, 0.01, 0.1, 0.5, 0.9, 1, 10))
    if kind == "boolean":
        return random.random() < 0.5
    return None if kind == "null" else random.choice(WORDS)


def _mapping(schema, random, depth):
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if "oneOf" in schema:
        required = random.choice(schema["oneOf"])["required"]
    names = [name for name in properties if name in required or random.random() < 2 / (2 + len(properties))]
    found = {name: _value(properties[name], random, depth + 1) for name in names}
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        found[random.choice(WORDS)] = _value(others, random, depth + 1)
    for value in schema.get("patternProperties", {}).values():
        path = random.choice(
            ["optimizer.lr", "optimizer.momentum", "clip.threshold", "clip[0].p", "clip.window", "train.l2"]
        )
        found[path] = _value(value, random, depth + 1)
    return found


def _spoilt(document, random):
    """The document with one of its values, keys or entries changed; what it was made of stays as it was."""
    if not isinstance(document, dict | list) or not document or random.random() < 0.15:
        return _wrong(document, random)
    if isinstance(document, list):
        place = random.randrange(len(document))
        changed = [_spoilt(item, random) if number == place else item for number, item in enumerate(document)]
        return changed if random.random() < 0.9 else random.choice((document * 2, document[:-1], document[::-1]))
    key = random.choice(list(document))
    if random.random() < 0.75:
        return document | {key: _spoilt(document[key], random)}
    renamed = {_misspelt(name, random) if name == key else name: value for name, value in document.items()}
    without = {name: value for name, value in document.items() if name != key}
    more = document | {random.choice([*_option_names(), *filter(str.isprintable, WORDS)]): document[key]}
    return random.choice((renamed, without, more))


def _wrong(value, random):
    makers = (
        lambda: random.choice(NUMBERS),
        lambda: random.choice(WORDS),
        lambda: random.choice(RANGES),
        lambda: _misspelt(value, random) if isinstance(value, str) else [value],
        lambda: {"name": value},
        lambda: random.choice(([], {}, [value, value], [[value]], {"a": {"b": [value]}})),
        lambda: value * random.choice((-1, 1e10, 1e-10)) if isinstance(value, float) else str(value),
        lambda: random.choice(_option_names()),
    )
    return random.choice(makers)()


@cache
def _option_names():
    """All names of the schema: sections, components and options."""
    found = set()

    def walk(schema):
        if isinstance(schema, dict):
            found.update(schema.get("properties", {}))
            found.update(word for word in schema.get("enum", ()) if isinstance(word, str))
        for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
            walk(part)

    walk(_schema())
    return sorted(found)


def _misspelt(word, random):
    word = str(word)
    place = random.randrange(len(word) + 1)
    return random.choice(
        (word[:place] + word[place + 1 :], word[:place] + "z" + word[place:], word.upper(), word + " ")
    )


def _as_text(document, random):
    """The document as YAML: in lines, or as JSON, whose numbers and texts YAML reads too."""
    if random.random() < 0.5:
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=10_000)
    text = json.dumps(document, ensure_ascii=random.random() < 0.5)
    return re.sub(r"\bNaN\b", ".nan", re.sub(r"\bInfinity\b", ".inf", text))


def _cut(text, random):
    """The text with a piece put in or cut out somewhere."""
    start = random.randrange(len(text) + 1)
    if random.random() < 0.6:
        return text[:start] + random.choice(PIECES) + text[start:]
    return text[:start] + text[start + random.randrange(20) :]
