"""Data sets, one file per source. A data set is a function of options that returns (x, y), which is then split,
or {"train": (x, y), "val": (x, y), "test": (x, y)}, where val and test may be missing.
"""
