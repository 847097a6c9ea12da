"""Read, validate and expand a YAML file into an Experiment; report all mistakes at once, with their places."""

from clipbench.config.experiment import Experiment, place_of_module
from clipbench.config.flat_options import flattened
from clipbench.config.load_experiment import check_early, load, load_without_imports, name_of
from clipbench.config.resolved_yaml import resolved
from clipbench.config.sweep_section import Sweep

__all__ = [
    "Experiment",
    "Sweep",
    "check_early",
    "flattened",
    "load",
    "load_without_imports",
    "name_of",
    "place_of_module",
    "resolved",
]
