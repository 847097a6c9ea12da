"""The inputs of a step: the examples of each batch, and noise on the gradient."""
