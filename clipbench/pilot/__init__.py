"""Gradient statistics of training without clipping, and the thresholds that they suggest for each rule."""
