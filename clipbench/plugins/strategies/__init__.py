"""Clipping rules, one file a family. A rule is a formula at a place; the engine makes it many.

A rule names what it needs and gets it with the lanes (one per model) leading:

    n, w, m            [lanes, places]   norm of the gradient, norm of the weights, largest absolute element there
    model_n, model_m   [lanes, 1]        the same over the whole model
    size               [places]          how many elements there are
    g                  [lanes, elements] the gradient itself, for rules `per="element"`
    row_mean           [lanes, elements] the mean of the element's row or filter; 0 in a bias
    threshold          [lanes, 1]        and its other options as they stand in the YAML
    state              tensors that `init=` in its decorator names; it returns them, changed, after everything else
    step               the number of the step, from 1
"""
