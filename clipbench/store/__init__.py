"""The folder `results/<experiment>/`: the truth for resume and report."""
