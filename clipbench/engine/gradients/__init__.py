"""Gradients of many lanes: vectorised where the model allows it, one lane after another otherwise."""
