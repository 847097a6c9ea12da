"""The plan of an experiment that is a training script: a cohort of trials, each of which is a process of its own."""

from __future__ import annotations

import itertools

from clipbench.config import Experiment
from clipbench.config.script_section import SECTION, metric_directions
from clipbench.core.trial import NOTHING, Trial, digest
from clipbench.errors import Findings
from clipbench.planning import arm_checks
from clipbench.planning.plan import Cohort, Plan
from clipbench.plugins import registry

# Options of arms that act on the gradients of parts of a batch, which a script does not show.
REASONS = {
    "scope": "clips parts of a batch on their own",
    "noise": "adds noise to the clipped gradients of examples",
    "delta": "belongs to `noise`",
    "adapt": "follows the gradients of examples",
}
# The progress of a trial is counted in thousandths, since the number of its steps is not known before.
PROGRESS_UNITS = 1000


def script_plan(experiment: Experiment) -> Plan:
    """Return the plan; raise InputError for arms that cannot be applied in a script."""
    findings = Findings(notes=list(experiment.notes))
    for key, arm in zip(experiment.keys["clip"], experiment.arms, strict=True):
        for option in arm_checks.options_of_parts(arm):
            text = f"`{option}` {REASONS[option]}, and a script shows the gradient of the whole batch only."
            findings.add(experiment.place(f"{key}.{option}"), text, "Remove it.")
    findings.raise_if_any()
    trials = tuple(
        Trial(None, NOTHING, NOTHING, experiment.training[0], arm, seed, script=script)
        for script, seed, arm in itertools.product(experiment.scripts, experiment.seeds, experiment.arms)
    )
    content = sorted({(script.name, script.source) for script in experiment.scripts if script})
    cohort = Cohort(digest([SECTION, content], 12), trials, 0, 1, PROGRESS_UNITS, loop_reason="it is a script")
    known = {name: metric.higher_is_better for name, metric in registry.catalogue("metric").items()}
    return Plan(
        experiment=experiment,
        cohorts=(cohort,),
        notes=tuple(findings.notes),
        higher=known | metric_directions(experiment.choices[SECTION]),
        norm_rules=arm_checks.norm_rules((cohort,)),
        validates=True,  # whether it reports validation measures shows when it runs
    )
