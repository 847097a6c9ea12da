"""Gradients of many lanes: vectorised where the model allows it, lane after lane where not."""
