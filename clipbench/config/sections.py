"""The small sections (`name`, `seeds`, `report`, `claims`), and functions to read any section."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from clipbench.config import claim_language
from clipbench.config.axes import OptionSpec
from clipbench.config.claim_language import Expectation, Vocabulary
from clipbench.config.component_options import NotNegative
from clipbench.config.measure_names import check_measure
from clipbench.config.values import show
from clipbench.config.yaml_nodes import Node
from clipbench.core.experiment_name import MADE_OF, name_problem, near_name
from clipbench.errors import Findings, did_you_mean
from clipbench.plugins.registry import REQUIRED

DEFAULT_SEEDS = 8
SEEDS = 2**32  # beyond, two seeds may be the same run
TUNED_TRAINING = ("schedule", "l1", "l2")  # options of `train` that `report.tuned` may choose

Positive = Annotated[float, Field(gt=0)]
Words = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ReportSection(Section):
    """The metric, the baseline and the margin of the comparison."""

    metric: str | None = None
    baseline: str | None = None  # a strategy's label or name, or one arm; None: nothing to compare with
    margin: NotNegative | None = None
    tuned: bool = False


class Claim(Section):
    """A statement that the report tests."""

    says: Words
    expect: Words
    metric: str | None = None
    margin: NotNegative | None = None
    family: str = ""  # p is corrected for the claims that have the same


def specs(section: type[Section]) -> dict[str, OptionSpec]:
    """The options that a section declares."""
    found = {}
    for name, info in section.model_fields.items():
        annotation = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
        found[name] = OptionSpec(name, annotation, REQUIRED if info.is_required() else info.default)
    return found


def read_report(node: Node | None, metrics: tuple[str, ...], findings: Findings) -> ReportSection | None:
    """The report section; `metrics` names the user's own."""
    return findings.attempt(lambda: ReportSection(**_with_metric(node, ReportSection, metrics) if node else {}))


def read_claims(node: Node | None, metrics: tuple[str, ...], findings: Findings) -> tuple[Claim, ...]:
    """The claims that could be read; what is wrong with the others is among the findings."""
    if node and not isinstance(node.value, list):
        findings.attempt(partial(_refuse, node, "a list of claims"))
        return ()
    items = node.value if node else ()
    read = (findings.attempt(partial(_with_metric, item, Claim, metrics)) for item in items)
    return tuple(Claim(**values) for values in read if values is not None)


def read_expectations(node: Node | None, vocabulary: Vocabulary, findings: Findings) -> tuple[Expectation, ...]:
    """Return what each claim expects. Unknown names are problems; names that this experiment lacks are notes."""
    read = []
    for claim in node.value if node else ():
        place = claim.value["expect"]
        expected = findings.attempt(partial(place.read, lambda text: claim_language.read(text, vocabulary)))
        for side in (expected.left, expected.right) if expected else ():
            if missing := vocabulary.missing(side):
                findings.note(f"{place.key} cannot be tested: {missing}")
        read += [expected] if expected else []
    return tuple(read)


def read_name(node: Node | None, path: Path) -> str:
    """Return the name that the YAML says, else that of its file: of the folder under `results/`, and in MLflow."""
    if node is None:
        return near_name(path.stem)
    name = node.plain()
    if not isinstance(name, str):
        raise node.error(f"{MADE_OF}, got {show(name)}.", "Put it in quotes." * isinstance(name, int | float))
    if problem := name_problem(name):
        raise node.error(f"{problem}, got {show(name)}.", f"Try {near_name(name)}.")
    return name


def read_seeds(node: Node | None, findings: Findings) -> Sequence[int] | None:
    """Return the seeds, given by their number or as a list; None if they could not be read."""
    return findings.attempt(lambda: _seeds(node, findings)) if node else range(DEFAULT_SEEDS)


def _seeds(node: Node, findings: Findings) -> Sequence[int]:
    seeds = node.plain()
    if _is_whole(seeds) and seeds >= 1:
        return range(seeds)
    if not isinstance(seeds, list) or not seeds or not all(_is_whole(seed) and seed >= 0 for seed in seeds):
        text = f"expected the number of seeds or a list of them, got {show(seeds)}."
        raise node.error(text, "Write seeds: 8, or seeds: [0, 1, 2].")
    seen = set[int]()
    for seed, item in zip(seeds, node.value, strict=True):
        if seed >= SEEDS:
            findings.add(item.place, f"seeds must be less than 2**32, got {seed}.", "Choose a smaller seed.")
        if seed in seen:
            findings.add(item.place, f"duplicate seed {seed}.", "Keep one of them.")
        seen.add(seed)
    return seeds


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_tunable(column: str, of_script: bool = False) -> bool:
    """Return whether `report.tuned` may choose a column: any option of the optimizer or script, a few of training."""
    section, _, option = column.partition(".")
    if section == "train" and of_script:
        return option != "script"
    if section == "train":
        return option.partition(".")[0] in TUNED_TRAINING
    return column == "lr" or (section == "optimizer" and bool(option))


def options_of(node: Node) -> dict[str, Node]:
    """Return the options of a section, which is a mapping."""
    if not isinstance(node.value, dict):
        _refuse(node, "a mapping of options")
    return dict(node.value)


def refuse_unknown(node: Node, known: list[str], findings: Findings) -> None:
    """Report the keys of a mapping that are not known."""
    for name, item in node.value.items():
        if name not in known:
            findings.add(item.key_place, f"{node.key} has no option {name!r}.", did_you_mean(name, known))


def read_values(node: Node, known: dict[str, OptionSpec], findings: Findings) -> dict[str, Any]:
    """Return the options that a mapping sets, none of them an axis; add mistakes to the findings."""
    given = options_of(node)
    refuse_unknown(node, list(known), findings)
    missing = [f"`{name}`" for name, spec in known.items() if spec.required and name not in given]
    if missing:
        findings.add(node.place, f"missing {' and '.join(missing)}.")
    read = {name: partial(item.read, known[name].validate) for name, item in given.items() if name in known}
    return {name: findings.attempt(value) for name, value in read.items()}


def _with_metric(node: Node, section: type[Section], metrics: tuple[str, ...]) -> dict[str, Any]:
    """Return the options of a section that may name the measure that it compares."""
    findings = Findings()
    values = read_values(node, specs(section), findings)
    findings.raise_if_any()
    if values.get("metric") is not None:
        node.value["metric"].read(lambda name: check_measure(name, metrics))
    return values


def _refuse(node: Node, expected: str) -> None:
    raise node.error(f"expected {expected}, got {show(node.plain())}.")
