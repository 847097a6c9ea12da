"""The words that a parent and its workers exchange. Tasks go by name, so that the parent need not import torch."""

# A task is (TRAIN, (function, trials, device, lanes)), which tells of its progress, or (function, arguments), where a
# function is "package.module:function".
TRAIN = "train"

# Answers: (PROGRESS, lane-steps done since the last one), then (DONE, result) or (FAILED, error).
PROGRESS, DONE, FAILED = "progress", "done", "failed"
