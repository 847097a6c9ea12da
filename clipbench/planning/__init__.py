"""From a validated experiment to trials, cohorts and chunks: what is trained, checked against the data and models."""
