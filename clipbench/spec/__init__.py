"""From a YAML file to an Experiment: read, checked, expanded; every mistake at once, with its place."""

from clipbench.spec.experiment import Experiment
from clipbench.spec.reading import load, name_of
from clipbench.spec.resolved import resolved
from clipbench.spec.sweep import Sweep

__all__ = ["Experiment", "Sweep", "load", "name_of", "resolved"]
