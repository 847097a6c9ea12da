"""The `report` and `claims` sections, and functions to read any section."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from clipbench.config import claim_language
from clipbench.config.axes import OptionSpec, read_value
from clipbench.config.claim_language import Expectation, Vocabulary
from clipbench.config.measure_names import unknown_measure
from clipbench.config.options import NotNegative
from clipbench.config.values import InvalidValue, show, takes_integers, validate
from clipbench.config.yaml_nodes import INVALID, Node
from clipbench.errors import Findings, did_you_mean
from clipbench.plugins.registry import REQUIRED

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
    margin: NotNegative = 0.0


def specs(section: type[Section]) -> dict[str, OptionSpec]:
    """The options that a section declares."""
    found = {}
    for name, info in section.model_fields.items():
        annotation = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
        default = REQUIRED if info.is_required() else info.default
        reader = partial(validate, annotation=annotation)
        found[name] = OptionSpec(name, reader, annotation, default, integer=takes_integers(annotation))
    return found


def read_report(node: Node | None, metrics: tuple[str, ...], findings: Findings) -> ReportSection | None:
    """The report section; `metrics` names the user's own."""
    values = read_values(node, specs(ReportSection), findings)
    if values is None or not is_measured(node, "metric", metrics, findings):
        return None
    return ReportSection(**values)


def read_claims(node: Node | None, metrics: tuple[str, ...], findings: Findings) -> tuple[Claim, ...]:
    """The claims that could be read; what is wrong with the others is among the findings."""
    if node is None or node.value is INVALID:
        return ()
    if not isinstance(node.value, list):
        findings.add(node.place, f"expected a list of claims, got {show(node.plain())}.")
        return ()
    read = [(item, read_values(item, specs(Claim), findings)) for item in node.value]
    return tuple(
        Claim(**values)
        for item, values in read
        if values is not None and is_measured(item, "metric", metrics, findings)
    )


def read_expectations(node: Node | None, vocabulary: Vocabulary, findings: Findings) -> tuple[Expectation, ...]:
    """Return what each claim expects. Unknown names are problems; names that this experiment lacks are notes."""
    read = []
    for claim in node.value if node else ():
        expected = claim.value["expect"]
        try:
            read.append(claim_language.read(str(expected.value), vocabulary))
        except InvalidValue as error:
            findings.add(expected.place, error.text, error.remedy)
        else:
            for side in (read[-1].left, read[-1].right):
                if missing := vocabulary.missing(side):
                    findings.note(f"{expected.place.key} cannot be tested: {missing}")
    return tuple(read)


def is_mapping(node: Node, findings: Findings) -> bool:
    """Return whether a node is a mapping of options; report it if it is not."""
    if isinstance(node.value, dict):
        return True
    if node.value is not INVALID:
        findings.add(node.place, f"expected a mapping of options, got {show(node.plain())}.")
    return False


def refuse_unknown(node: Node, known: list[str], findings: Findings) -> None:
    """Report the keys of a mapping that are not known."""
    for name, item in node.value.items():
        if name not in known:
            findings.add(item.key_place, f"{node.key} has no option {name!r}.", did_you_mean(name, known))


def read_values(node: Node | None, known: dict[str, OptionSpec], findings: Findings) -> dict[str, Any] | None:
    """The options that a mapping sets, none of them an axis; None if any was reported as wrong."""
    if node is None:
        return {}
    if not is_mapping(node, findings):
        return None
    before = len(findings.problems)
    refuse_unknown(node, list(known), findings)
    given = {name: item for name, item in node.value.items() if name in known}
    values = {name: read_value(item, known[name], findings) for name, item in given.items()}
    missing = [f"`{name}`" for name, spec in known.items() if spec.required and name not in given]
    if missing:
        findings.add(node.place, f"missing {' and '.join(missing)}.")
    unreadable = INVALID in values.values()
    return values if len(findings.problems) == before and not unreadable else None


def is_measured(node: Node | None, option: str, metrics: tuple[str, ...], findings: Findings) -> bool:
    item = node.value.get(option) if node else None
    if item is None or item.value is None:
        return True
    problem, remedy = unknown_measure(item.value, metrics)
    if problem:
        findings.add(item.place, problem, remedy)
    return not problem
