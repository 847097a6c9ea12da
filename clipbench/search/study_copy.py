"""A copy of a study in memory, where Optuna's samplers and pruners work.

They write while they work: a storage would keep what a killed process had written of half a point or half a training,
and the search would go on otherwise than if it had not been killed. So the storage gets points and results only whole.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from clipbench.planning.contender import Hyperparameter
from clipbench.search.samplers_and_pruners import without_warnings
from clipbench.search.stored_values import distribution_of
from clipbench.store.json_document import Scalar

OF_STUDY = "of the study"  # attribute of a trial: those of the study after it was asked for


class StudyCopy:
    """The trials of a study, each under its own number; of those that run, only what they were asked with."""

    def __init__(
        self, name: str, directions: Sequence[StudyDirection], pruner: BasePruner, trials: Iterable[FrozenTrial]
    ) -> None:
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(storage=self._storage, study_name=name, directions=directions, pruner=pruner)
        for trial in trials:
            self._add(trial)

    def _add(self, trial: FrozenTrial) -> None:
        known = copy.copy(trial)
        known.user_attrs = {}
        attributes: dict[str, Any] = dict(trial.system_attrs)
        for key, value in attributes.pop(OF_STUDY, {}).items():
            self._storage.set_study_system_attr(self._study._study_id, key, value)
        known.system_attrs = attributes
        if trial.state == TrialState.RUNNING:
            known.intermediate_values = {}
        self._storage.create_new_trial(self._study._study_id, known)

    @without_warnings()
    def ask(
        self, sampler: BaseSampler, hyperparameters: Iterable[Hyperparameter], values: Mapping[str, Scalar] | None
    ) -> FrozenTrial:
        """Return a new trial, with given values or those of the sampler."""
        self._study.sampler = sampler
        if values is not None:
            self._study.enqueue_trial(dict(values))
        trial = self._study.ask({param.path: distribution_of(param) for param in hyperparameters})
        asked = copy.copy(self._storage.get_trial(trial._trial_id))
        if of_study := self._storage.get_study_system_attrs(self._study._study_id):
            asked.system_attrs = {**asked.system_attrs, OF_STUDY: of_study}
        return asked

    def report(self, number: int, step: int, score: float) -> None:
        """Report the score of a trial at a step."""
        self._storage.set_trial_intermediate_value(self._id(number), step, score)

    @without_warnings()
    def should_prune(self, number: int) -> bool:
        """Whether the pruner rejects a trial by its last report."""
        return self._study.pruner.prune(self._study, self._storage.get_trial(self._id(number)))

    def attributes(self, number: int) -> dict[str, Any]:
        """Return what the sampler and the pruner have noted of a trial."""
        return dict(self._storage.get_trial(self._id(number)).system_attrs)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
