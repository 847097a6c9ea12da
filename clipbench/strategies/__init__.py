"""Clipping rules, one file a family. A rule is a formula at a place; the engine makes it many.

A rule names what it needs and gets it with the lanes (one per model) leading:

    n, w, m            [lanes, places]   norm of the gradient, norm of the weights, largest absolute element there
    model_n, model_m   [lanes, 1]        the same over the whole model
    g                  [lanes, elements] the gradient itself, for rules `per="element"`
    threshold          [lanes, 1]        and its other options as they stand in the YAML
"""
