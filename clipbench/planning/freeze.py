"""What a plan's numbers depend on, kept with an experiment, and compared when it is to be trained again as it was."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from clipbench.config.frozen_section import Frozen
from clipbench.core.trial import Component, Trial, digest
from clipbench.errors import InputError
from clipbench.planning.plan import Plan
from clipbench.store.folder import Store


def frozen_of(plan: Plan, device: str, paths: Mapping[str, Any], environment: Mapping[str, str]) -> Frozen:
    """Return what trains the trials of a plan; `paths` are the choices of those cohorts that were timed."""
    cohorts = {cohort.id for cohort in plan.cohorts}
    return Frozen(
        trials=content_hash(plan),
        device=device,
        data={trial.data.label: trial.fingerprint for trial in plan.trials if trial.data},
        sources={part.name: part.source for trial in plan.trials for part in _parts(trial) if part.source},
        paths={cohort: choice for cohort, choice in paths.items() if cohort in cohorts},
        environment=dict(environment),
    )


def content_hash(plan: Plan) -> str:
    """Return the hash of the ids of all trials of a plan."""
    return digest(sorted(trial.id for trial in plan.trials))


def frozen_before(plan: Plan) -> Frozen:
    """Return what has trained the experiment; raise InputError if its file does not say it."""
    if plan.experiment.frozen is None:
        text = "there is no section `frozen`: this file was not written by `clipbench run`."
        remedy = "Name the experiment.yaml in its results folder, or leave out --frozen."
        raise InputError.at(plan.experiment.place("frozen"), text, remedy)
    return plan.experiment.frozen


def refuse_others(before: Frozen, now: Frozen, plan: Plan) -> None:
    """Raise InputError if the trials of the plan are not those that were trained."""
    if before.trials != now.trials:
        changed = list(_changed(before, now)) or ["options differ"]
        text = f"these are other trials than those that were trained: {', '.join(changed)}."
        remedy = "Leave out --frozen to train the experiment as it is now."
        raise InputError.at(plan.experiment.place("frozen.trials"), text, remedy)


def differences(before: Frozen, now: Frozen) -> list[str]:
    """Return a note about what may change the last digits of numbers; none if nothing differs."""
    names = {**before.environment, **now.environment}
    pairs = {name: (before.environment.get(name, "nothing"), now.environment.get(name, "nothing")) for name in names}
    pairs["device"] = before.device, now.device
    differing = [f"{name} was {old} and is {new}" for name, (old, new) in pairs.items() if old != new]
    return [f"numbers may differ in their last digits: {', '.join(differing)}"] if differing else []


def other_data(plan: Plan, store: Store, done: Collection[str]) -> Iterator[str]:
    """Say that what is trained belongs to other data than those of the plan, if none of the plan is."""
    wanted = {trial.fingerprint for trial in plan.trials if trial.fingerprint}
    if not done or not wanted or any(trial.id in done for trial in plan.trials):
        return
    if wanted.isdisjoint({row.get("fingerprint") for row in store.rows(done)}):
        yield f"the data have changed: none of the {len(done)} trials in {store.folder} are of these"


def _changed(before: Frozen, now: Frozen) -> Iterator[str]:
    for kind, old, new in (("the data", before.data, now.data), ("the file of", before.sources, now.sources)):
        yield from (f"{kind} {name} differ{'s' * (kind != 'the data')}" for name in new if old.get(name) != new[name])


def _parts(trial: Trial) -> Iterator[Component]:
    train = trial.train
    parts = (
        trial.data,
        trial.model,
        trial.optimizer,
        trial.clip,
        trial.script,
        train.loss,
        train.schedule,
        train.noise,
    )
    yield from (part for part in (*parts, *train.metrics) if part)
