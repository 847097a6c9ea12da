"""Clipping rules, one file per family. A rule is a formula at a place; the engine applies it to many models.

A rule names the arguments it needs; their first dimension is the lanes, one per model:

    n, w, m            [lanes, places]   norm of the gradient, norm of the weights, largest absolute element there
    model_n, model_m   [lanes, 1]        the same over the whole model
    size               [places]          the number of elements of each place
    g                  [lanes, elements] the gradient itself, for rules `per="element"`
    row_mean           [lanes, elements] the mean of the element's row or filter; 0 in a bias
    threshold          [lanes, 1]        and its other options, as in the YAML
    state              tensors that `init=` of its decorator names; the rule returns the new state last
    step               the number of the step, from 1
"""
