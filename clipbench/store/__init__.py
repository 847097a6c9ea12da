"""The folder `results/<experiment>/`: the truth for resume and report."""

from clipbench.store.folder import Store

__all__ = ["Store"]
