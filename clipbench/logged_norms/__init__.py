"""Gradient norms that some training has logged: in a table, TensorBoard, the Trainer's state, MLflow or our results."""

from clipbench.logged_norms.norm_log import LoggedNorms, read_norms

__all__ = ["LoggedNorms", "read_norms"]
