"""Check that groups of parameters, of optimizers and of arms, have the parameters that they name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from clipbench.config import Experiment
from clipbench.config.yaml_nodes import child_key
from clipbench.core.parameter_groups import matches, number_of_group, patterns_of
from clipbench.core.trial import Component
from clipbench.errors import Place, did_you_mean
from clipbench.planning.arm_checks import ArmProblem


def empty_groups(experiment: Experiment, names: Collection[str]) -> Iterator[ArmProblem]:
    """Find patterns that match no parameter of any model, and groups whose parameters are all in earlier ones."""
    keys = [*experiment.keys["optimizer"], *experiment.keys["clip"]]
    places = experiment.places
    for key, component in zip(keys, [*experiment.optimizers, *experiment.arms], strict=True) if names else ():
        groups = _groups(component)
        numbers = {number_of_group(name, groups) for name in names}
        for number, group in enumerate(groups):
            unknown = [p for p in patterns_of(group) if not any(matches(name, [p]) for name in names)]
            for pattern in unknown:
                where = _written(places, f"{key}.groups", number, pattern)
                yield ArmProblem(where, f"no parameter matches {pattern!r}.", _near(pattern, names))
            if not unknown and number not in numbers:
                where = _written(places, f"{key}.groups", number, patterns_of(group)[0])
                text = "all parameters of this group are in groups before it: the first group that matches wins."
                yield ArmProblem(where, text, "Move it up, or remove it.")


def _groups(component: Component) -> Sequence[Component]:
    groups = component.as_dict().get("groups")
    several = groups if isinstance(groups, tuple) else ()
    return [group for group in several if isinstance(group, Component) and not group.name]


def _near(pattern: str, names: Collection[str]) -> str:
    modules = {name.rpartition(".")[0] for name in names} - {""}
    return did_you_mean(pattern, sorted(modules | set(names)))


def _written(places: Mapping[str, Place], groups: str, number: int, pattern: str) -> str:
    """Return the key of a group as it is written: one of a list, or a pattern of a mapping."""
    keys = [f"{groups}[{number}].match", f"{groups}[{number}]", child_key(groups, pattern)]
    return next((key for key in keys if key in places), groups)
