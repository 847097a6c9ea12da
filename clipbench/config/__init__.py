"""From a YAML file to an Experiment: read, checked, expanded; every mistake at once, with its place."""

from clipbench.config.dump import resolved
from clipbench.config.experiment import Experiment
from clipbench.config.experiment_file import load, name_of
from clipbench.config.sweep_section import Sweep

__all__ = ["Experiment", "Sweep", "load", "name_of", "resolved"]
