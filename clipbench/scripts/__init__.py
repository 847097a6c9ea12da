"""Training scripts as trials: the `clip` object that a script gets, and the process that it runs in."""
