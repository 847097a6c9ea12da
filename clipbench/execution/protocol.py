"""The words that a parent and its workers exchange. Tasks go by name, so that the parent need not import torch."""

# A task is (TRAIN, (asks, function, trials, device, lanes)), which tells of its progress and, if it `asks`, waits at
# the end of epochs for an answer; or (function, arguments). A function is "package.module:function".
TRAIN = "train"

# Answers: (PROGRESS, lane-steps done since the last one), (ASK, (epoch, {trial's id: {measure: value}})), which is
# answered by the ids of trials to prune; then (DONE, result) or (FAILED, error).
PROGRESS, ASK, DONE, FAILED = "progress", "ask", "done", "failed"
