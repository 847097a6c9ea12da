"""Everything that a YAML file can name: clipping rules, models, data sources, optimizers, losses, metrics,
schedules and noise distributions.
"""
