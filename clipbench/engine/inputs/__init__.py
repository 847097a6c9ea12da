"""What goes into a step: the examples of each batch, and noise on the gradient."""
