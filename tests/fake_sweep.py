"""Searches as they are written to sweep.json, with the confirmed trials of their winners, without training anything."""

import numpy as np
import pandas as pd

from tests.reporting.test_report import arm

FRESH = range(8, 16)
PENALTY = 0.1  # what a diverged lane counts as: the accuracy of guessing


def param(path="threshold", low=0.01, high=100.0, log=True, choices=(), whole=False):
    return {
        "path": path, "key": f"clip[1].{path}", "low": low, "high": high, "log": log, "whole": whole, "choices": list(choices),
    }  # fmt: skip


LR = param("lr", 0.001, 1.0)
BATCHES = param("clip.window", None, None, log=False, choices=[10, 100, 1000])


def drawn(hyperparameters, rng, number):
    """A point of the space: evenly over the first hyperparameter at first, then at random."""
    values = {}
    for each in hyperparameters:
        share = (number + 0.5) / 8 if number < 8 and each is hyperparameters[0] else rng.uniform()
        if each["choices"]:
            values[each["path"]] = each["choices"][int(share * len(each["choices"]))]
        elif each["log"]:
            values[each["path"]] = float(f"{each['low'] * (each['high'] / each['low']) ** share:.4g}")
        else:
            values[each["path"]] = float(f"{each['low'] + (each['high'] - each['low']) * share:.4g}")
    return values


def accuracy(values, best):
    """A hill over the logarithms of the hyperparameters."""
    far = sum((np.log10(values[path]) - np.log10(at)) ** 2 for path, at in best.items() if path in values)
    return 0.1 + 0.84 * np.exp(-0.06 * far)


def points(name, hyperparameters, count, best, *, explode=30.0, second=False, running=0, noise=0.004, gain=0.0):
    """Points that close in on the best one; too large ones diverge, poor ones are pruned."""
    rng = np.random.default_rng(sum(map(ord, name)))
    made = []
    for number in range(count):
        values = drawn(hyperparameters, rng, number)
        if number >= 16:  # as a sampler does, near what was good
            values = {path: near(value, best.get(path), rng, hyperparameters) for path, value in values.items()}
        score = accuracy(values, best) + gain + rng.normal(0, noise)
        is_running = number >= count - running
        diverged = (
            0 if is_running else int(min(3, max(0, round(2 * np.log10(values.get("threshold", 1) / explode) + 1))))
        )
        is_pruned = not diverged and number > 8 and score < 0.85
        score = (3 - diverged) / 3 * score + diverged / 3 * PENALTY
        state = "running" if is_running else "pruned" if is_pruned else "complete"
        scores = [
            score - 0.05 * is_pruned,
            *([9 - 3 * np.log10(values["threshold"] / 0.5) + rng.normal(0, 1.2)] if second else []),
        ]
        made.append(
            {
                "number": number, "values": values, "origin": "yaml" if number < 8 else "search", "state": state,
                "scores": [] if is_running else scores,
                "deviations": [] if is_running else [noise * 1.7] * len(scores),
                "diverged": diverged, "lanes": 3, "epochs": 0 if is_running else 5 if is_pruned else 20,
                "ids": [f"{name}-{number}-{seed}" for seed in range(3)], "round": number - number % 8,
            }
        )  # fmt: skip
    return made


def near(value, best, rng, hyperparameters):
    if best is None or not isinstance(value, float):
        return value
    return float(f"{best * 10 ** rng.normal(0, 0.35):.4g}")


def steady(made):
    return [each for each in made if each["state"] == "complete" and not each["diverged"]]


def front(made):
    """Points of which no other is better in accuracy and in epochs."""
    return [
        each["number"] for each in steady(made)
        if not any(o["scores"][0] >= each["scores"][0] and o["scores"][1] <= each["scores"][1] and o is not each for o in steady(made))
    ]  # fmt: skip


def contender(
    name, hyperparameters, made, records=(), *, edges=(), importances=None, second=False, setting="", confirm=True
):
    label = f"{name} ({setting})" if setting else name
    good = front(made) if second else [each["number"] for each in steady(made)]
    return {
        "name": name, "setting": setting, "label": label, "study": f"{name}-1a2b3c4d", "hyperparameters": list(hyperparameters), "points": made,
        "importances": importances or {}, "winner": max(good, key=lambda n: made[n]["scores"][0], default=None),
        "pareto": good if second else [], "edges": list(edges),
        "confirmed": [row["id"] for row in records] if confirm else [],
    }  # fmt: skip


def document(*contenders, objectives=(("val/accuracy", True),), **changed):
    return {
        "format": 1, "experiment": "study", "sampler": "tpe", "pruner": "median", "trials": 40, "search_seeds": [0, 1, 2],
        "confirm_seeds": list(FRESH), "objectives": [{"name": name, "higher": higher} for name, higher in objectives],
        "storage": "sweep.journal", "stopped": "", "contenders": list(contenders),
    } | changed  # fmt: skip


def fresh(strategy, threshold=None, gain=0.0, **other):
    """The trials of a winner on the seeds that the search never saw."""
    return [
        row | {"seed": row["seed"] + FRESH[0], "id": f"{row['id']}/fresh"}
        for row in arm(strategy, threshold, gain=gain, **other)
    ]


def found(hyperparameters, made, name, gain, **other):
    """The confirmed trials of the best of these points."""
    values = max(steady(made), key=lambda each: each["scores"][0])["values"]
    options = {key: value for key, value in values.items() if key not in ("threshold",) and not key.startswith("clip.")}
    return fresh(name, values.get("threshold"), gain, **options | other)


def thresholds():
    """One hyperparameter: an optimistic score, a confirmed one at the edge, a rule without a threshold."""
    one, two = (
        points("norm", [param()], 40, {"threshold": 0.5}),
        points("value", [param()], 40, {"threshold": 0.02}, gain=-0.02),
    )
    none, norm, value = (
        fresh("none", gain=-0.01),
        found([param()], one, "norm", 0.0),
        found([param()], two, "value", -0.012),
    )
    edge = {"path": "threshold", "end": "low", "remedy": "--set clip[2].threshold='{log: [0.0001, 100]}'"}
    written = document(
        contender("none", (), [], none),
        contender("norm", [param()], one, norm),
        contender("value", [param()], two, value, edges=[edge]),
    )
    return written, pd.DataFrame(none + norm + value)


def jointly():
    """Thresholds with learning rates, and a choice that one of the rules has."""
    wide, more = [param(), LR], [param(), LR, BATCHES]
    none = points("none", [LR], 40, {"lr": 0.1}, gain=-0.02)
    norm = points("norm", wide, 40, {"threshold": 0.5, "lr": 0.2})
    window = points("zclip", more, 40, {"threshold": 2.0, "lr": 0.05}, gain=-0.01)
    rows = [
        found([LR], none, "none", -0.015),
        found(wide, norm, "norm", 0.004),
        found(more, window, "zclip", -0.005),
    ]
    written = document(
        contender("none", [LR], none, rows[0]),
        contender("norm", wide, norm, rows[1], importances={"threshold": 0.31, "lr": 0.69}),
        contender("zclip", more, window, rows[2], importances={"threshold": 0.2, "lr": 0.75, "clip.window": 0.05}),
    )
    return written, pd.DataFrame([row for each in rows for row in each])


def objectives():
    """Accuracy against the epochs that it takes."""
    norm = points("norm", [param()], 40, {"threshold": 0.5}, second=True)
    value = points("value", [param()], 40, {"threshold": 0.1}, second=True, gain=-0.02)
    slow = {"train.target": '["val/accuracy", 0.9]'}
    none = [row | slow | {"epochs_to_target": 9.0 + row["seed"] % 3} for row in fresh("none", gain=-0.02)]
    rows = [
        [row | slow | {"epochs_to_target": 6.0 + row["seed"] % 3} for row in found([param()], made, name, gain)]
        for name, made, gain in (("norm", norm, 0.0), ("value", value, -0.02))
    ]
    written = document(
        contender("none", (), [], none),
        contender("norm", [param()], norm, rows[0], second=True),
        contender("value", [param()], value, rows[1], second=True),
        objectives=(("val/accuracy", True), ("epochs_to_target", False)),
        pruner="none",
    )
    return written, pd.DataFrame(none + rows[0] + rows[1])


def unfinished():
    """Two searches under way, nothing confirmed, and one that was not begun."""
    norm = points("norm", [param()], 24, {"threshold": 0.5}, running=8)
    value = points("value", [param()], 8, {"threshold": 0.02}, running=8)
    value[0] |= {"state": "failed"}
    written = document(
        contender("none", (), [], confirm=False),
        contender("norm", [param()], norm, confirm=False),
        contender("value", [param()], value, confirm=False),
        contender("agc", [param()], [], confirm=False),
        stopped="timeout of 600 s",
    )
    return written, pd.DataFrame()


SCENES = {scene.__name__: scene for scene in (thresholds, jointly, objectives, unfinished)}
