"""Command lines made from the commands of the application and their own options, with words that may be wrong."""

import json

import typer

from clipbench.cli import app
from tests.fuzz.yaml_inputs import NUMBERS, WORDS, experiment_text

# These would serve, train or wait for a server: only their mistakes are tried.
LONG_COMMANDS = {"bench", "ui", "pilot", "push", "pull", "doctor"}
ALWAYS = {"run": ["--dry-run", "--no-mlflow"], "sweep": ["--dry-run", "--no-mlflow"], "check": ["--no-data"]}
SETS = [
    "seeds",
    "train.epochs",
    "clip[1].threshold",
    "clip[9].x",
    "model",
    "model.hidden",
    'sweep.search."optimizer.lr"',
    "x.y[",
    "",
]
FILES = [
    "good.yaml",
    "gone.yaml",
    "spoilt.yaml",
    "results",
    "results/good",
    ".",
    "/dev/zero",
    "pipe.yaml",
    "loop.yaml",
    "-",
]


def command_line(random, folder):
    """Arguments for `clipbench`; the folder gets the files that they name."""
    commands = typer.main.get_command(app).commands
    name = random.choice([each for each in commands if each not in LONG_COMMANDS])
    command = commands[name]
    (folder / "spoilt.yaml").write_text(experiment_text(random), encoding="utf-8", errors="surrogatepass")
    words = [name, *ALWAYS.get(name, ())]
    for parameter in command.params:
        if parameter.name == "help" or random.random() < 0.6 - 0.5 * (not hasattr(parameter, "is_flag")):
            continue
        flags = [each for each in parameter.opts if each.startswith("-")]
        if flags and parameter.is_flag:
            words.append(random.choice(flags))
        elif flags:
            words += [random.choice(flags), _value(parameter.name, random)]
        else:
            words += [_value(parameter.name, random) for _ in range(random.choice((1, 1, 2)))]
    if random.random() < 0.1:
        words.append(_nasty(random))
    if random.random() < 0.1:
        words.insert(random.randrange(1, len(words) + 1), random.choice(["--", "-h", "--nonsense", "-x", "--set", ""]))
    return words


def _value(name, random):
    if name in ("experiment", "experiments", "study", "path") and random.random() < 0.85:
        return random.choice(FILES)
    if name == "sets":
        value = random.choice(
            [json.dumps(random.choice(NUMBERS)), _nasty(random), "[1, 2]", "{log: [0.1, 1]}", "{name: sgd}"]
        )
        return f"{random.choice(SETS)}={value}"
    if name == "results" and random.random() < 0.8:
        return random.choice(["results", "new", "good.yaml"])
    return random.choice([_nasty(random), "1", "strategies", "norm", "json", "html", "cpu", "torch"])


def _nasty(random):
    return str(random.choice([*NUMBERS, *WORDS])).replace("\0", "")
