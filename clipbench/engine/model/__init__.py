"""One model as pure functions of its weights, and the stacked weights of many."""
