"""The search for thresholds: Optuna asks, cohorts train, and winners are confirmed on fresh seeds.

This package is the only place that knows Optuna.
"""
