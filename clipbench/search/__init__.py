"""The search for thresholds: Optuna suggests points, cohorts train them, and fresh seeds confirm the best.

The only package that imports Optuna.
"""
