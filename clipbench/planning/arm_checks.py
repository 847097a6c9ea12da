"""Check what arms need of models and data before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from torch import nn

from clipbench.core import generators
from clipbench.core.parameter_groups import matches
from clipbench.core.trial import OF_PARTS, Component, Value
from clipbench.datasets import Dataset
from clipbench.engine.clipping.adaptive_threshold import AdaptiveThreshold
from clipbench.engine.clipping.privacy import has_accountant, is_bounded
from clipbench.engine.clipping.threshold_groups import groups_of_arm, threshold_groups
from clipbench.engine.gradients.microbatches import BATCH, Scope, scope_of
from clipbench.engine.inputs.batches import TrainingLength
from clipbench.engine.model.network import Batch, Network
from clipbench.errors import described, did_you_mean
from clipbench.planning.plan import Cohort
from clipbench.plugins import registry

Arms = Sequence[tuple[str, Component]]  # each with its key path in the YAML


class ArmProblem(NamedTuple):
    """What is wrong with an option of an arm, whose key path is `key`."""

    key: str
    text: str
    remedy: str = ""


def unknown_excludes(arms: Arms, names: set[str]) -> Iterator[ArmProblem]:
    """Find `exclude` patterns that match no parameter of any model."""
    for key, arm in arms if names else ():
        for pattern in _excludes(arm):
            if not any(matches(name, (pattern,)) for name in names):
                modules = sorted({name.rpartition(".")[0] for name in names} - {""})
                text = f"no parameter matches {pattern!r}."
                yield ArmProblem(f"{key}.exclude", text, did_you_mean(pattern, modules or sorted(names)))


def nothing_left(arms: Arms, model: str, names: Sequence[str]) -> Iterator[ArmProblem]:
    """Find arms that exclude every trained parameter of a model, given by name, or whose groups do not fit to it."""
    for key, arm in arms:
        patterns, groups = _excludes(arm), groups_of_arm(arm)
        if patterns and all(matches(name, patterns) for name in names):
            text = f"exclude matches every trained parameter of {model}: {', '.join(names)}."
            yield ArmProblem(f"{key}.exclude", text)
        elif groups and not isinstance(groups[0], Component) and len(groups) != len(names):
            text = f"groups has {len(groups)} thresholds, and {model} has {len(names)} trained parameters:"
            yield ArmProblem(f"{key}.groups", f"{text} {', '.join(names)}.", "Write one threshold for each of them.")
        elif groups and not threshold_groups(arm, names):
            text = f"no trained parameter of {model} is in a group with a threshold: {', '.join(names)}."
            yield ArmProblem(f"{key}.groups", text)


def impossible_scopes(
    arms: Arms, model: str, built: Callable[[], Network], schedule: TrainingLength, example: Batch
) -> Iterator[ArmProblem]:
    """Find scopes that split batches into too many parts, or into parts that the model cannot be trained on."""
    for key, arm in arms:
        scope, text, remedy = Scope.of(scope_of(arm), schedule), "", ""
        if scope.batch and scope_of(arm) != BATCH:
            text = "parts of a batch are not clipped separately where batches are accumulated."
            remedy = "Write accumulate: 1 and a larger batch_size: parts are computed one after another anyway."
        elif scope.batch:
            continue
        elif scope.parts and not built().has_data:
            text, remedy = "scope requires data.", "Remove it."
        elif scope.parts > schedule.batch:
            text = f"batches of {schedule.batch} examples cannot be split into {scope.parts} shards."
        elif scope.parts:
            size = _smallest(scope, schedule)
            some = "one example" if size == 1 else f"{size} examples"
            if problem := _refusal(built(), example, size):
                text = f"{model} cannot be trained on {some} at a time: {problem}."
        if text:
            yield ArmProblem(f"{key}.scope", text, remedy)


def privacy_notes(arms: Arms, module: nn.Module, dataset: Dataset | None) -> Iterator[str]:
    """Explain why arms with noise have no epsilon."""
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    for key, arm in arms:
        if not arm.as_dict().get("noise"):
            continue
        reason = ""
        if dataset is not None and dataset.size is None:
            reason = " for a stream, which has no fixed examples."
        elif dataset is not None and dataset.augment is not None and dataset.augment.mixes:
            reason = ": the augmentation mixes examples, of which each may then be in several gradients."
        elif not is_bounded(arm, names):
            reason = f": {arm.label} does not bound the norm of an example's whole gradient."
        elif not has_accountant():
            reason = " without Opacus. Run `pip install 'clipbench[privacy]'`."
        if reason:
            yield f"{key}.noise: epsilon is not computed{reason}"


def options_of_parts(arm: Component) -> Iterator[str]:
    """Yield the options that need the gradients of parts of a batch, unless the rule has one of that name."""
    own = registry.of("strategy", arm).options
    for name, value in arm.options:
        if name in OF_PARTS and name not in own and value not in (None, 0.0, "batch"):
            yield name


def kept_by_parts(scope: Scope, parameters: int) -> int:
    """Return the elements that the parts of a lane keep: gradients, their magnitudes, and clipped gradients."""
    return 3 * scope.parts * parameters


def by_scope(arms: Sequence[Component]) -> dict[Value, list[Component]]:
    """Group arms that can be trained together, those on whole batches first."""
    groups: dict[Value, list[Component]] = {}
    for arm in sorted(arms, key=lambda arm: scope_of(arm) != BATCH):
        groups.setdefault(scope_of(arm), []).append(arm)
    return groups


def _smallest(scope: Scope, schedule: TrainingLength) -> int:
    """Examples in the smallest part of any batch."""
    batches = {schedule.size(0), schedule.size(schedule.epoch_steps - 1)}
    return min(size for batch in batches for size in scope.sizes(batch) if size)


def _refusal(network: Network, example: Batch, size: int) -> str:
    try:
        with generators.preserved():
            network.plain_loss(*(part[:size] for part in example))
    except Exception as error:  # noqa: BLE001 - the user's own function may fail in any way
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        return described(cause).rstrip(".")
    return ""


def _excludes(arm: Component) -> tuple[str, ...]:
    patterns = arm.as_dict().get("exclude") or ()
    return tuple(str(pattern) for pattern in patterns) if isinstance(patterns, tuple) else ()


def norm_rules(cohorts: Iterable[Cohort]) -> tuple[str, ...]:
    """The strategies that compare their threshold with the norm of the whole gradient."""
    clips = {trial.strategy: trial.clip for cohort in cohorts for trial in cohort.trials}
    facts = {name: registry.of("strategy", clip).facts for name, clip in clips.items()}
    whole = {
        name
        for name, clip in clips.items()
        if clip.as_dict().get("per") in (None, facts[name].get("per"))
        and not (groups_of_arm(clip) or AdaptiveThreshold.of(clip))
    }
    return tuple(name for name in clips if name in whole and facts[name].get("threshold_is_norm"))
