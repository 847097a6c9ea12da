"""How the house is built: imports run one way, each outside library has its place, and files stay small."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import clipbench

ROOT = Path(clipbench.__file__).parent

# From the ground up: a folder of `clipbench/`, or a file of it, imports only from lines above its own.
LAYERS = (
    ("errors",),
    ("core",),
    ("plugins",),
    ("datasets", "config", "stats", "compiler"),
    ("store",),
    ("engine",),
    ("planning",),
    ("execution", "tracking", "pilot", "clipper"),
    ("adapters",),
    ("scripts",),
    ("analysis",),
    ("reporting", "logged_norms"),
    ("commands",),
    ("search",),
    ("api",),
    ("cli",),
    ("__main__",),
)
# The families of plug-ins; one never imports another.
PLUGINS = (
    "strategies", "models", "data_sources", "optimizers", "losses", "metrics", "schedules", "noise_laws",
)  # fmt: skip
# Libraries that are known to one place alone.
HOMES = {
    "mlflow": ("tracking/mlflow_client.py",),
    "optuna": ("search/",),
    "sqlalchemy": ("search/database.py", "tracking/mlflow_database.py"),
    "ray": ("execution/ray_workers.py",),
    "typer": ("cli/",),
    "yaml": ("config/",),
    "pydantic": ("config/", "store/", "analysis/subject_cache.py", "reporting/formats/json_report.py"),
    "pyarrow": ("store/",),
    "scipy": ("stats/",),
    "matplotlib": ("reporting/figures/drawing.py",),
    "resvg_py": ("reporting/figures/drawing.py",),
    "opacus": ("engine/clipping/privacy.py",),
    "tensorboard": ("logged_norms/event_files.py", "tracking/tensorboard_files.py"),
    "transformers": ("adapters/trainer_clip.py", "scripts/hugging_face.py"),
    "lightning": ("adapters/lightning_clip.py",),
    "accelerate": ("adapters/accelerate_clip.py",),
    "jinja2": ("reporting/formats/html.py",),
    "rich": ("cli/", "commands/progress.py", "reporting/formats/"),
}
# `clipbench --help` must not pay for what it does not use.
HEAVY = ("torch", "mlflow", "pandas", "optuna", "sklearn", "scipy", "matplotlib", "pyarrow")
# Pickles run programs, so none is read of what others may have written: libraries that read them, and where one of them
# may be imported: for the name of an error, to write, for our own file beside compiled modules, or with a list of names.
PICKLES = ("pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib")
MAY_PICKLE = {
    "engine/checkpoint.py": {"UnpicklingError"},
    "scripts/saved_state.py": {"UnpicklingError"},
    "engine/model/python_state.py": {"dumps"},
    "plugins/catalogue_file.py": {"UnpicklingError", "dumps", "loads"},
    "search/cmaes_sampler.py": {"UnpicklingError", "Unpickler"},
}
# Functions that read pickles unless an argument says no, and others that always do.
PLAIN = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}
UNPICKLES = {"read_pickle", "load_model", "load_from_checkpoint", "unsafe_load", "full_load", "torch.jit.load"}
SPEAKS = ("cli/", "scripts/")  # prints and exits: `scripts/` in the process of a script
MOST_LINES = 300
# Modules that are hidden by their one function all the same.
HIDDEN: dict[str, set[str]] = {}

# Names of rules that mean nothing else.
COINED = {"autoclip", "zclip", "adagc", "agc", "halve", "centralize"}

FILES = sorted(ROOT.rglob("*.py"))


def every_file(test):
    """Let a test take all files, and name those where it fails."""

    def of_all():
        problems = {}
        for file in FILES:
            try:
                test(file)
            except AssertionError as error:
                problems[file.relative_to(ROOT).as_posix()] = str(error).partition("\n")[0]
        assert not problems

    of_all.__name__ = test.__name__
    return of_all


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def part(file: Path) -> str:
    """The module or package of `clipbench` that a file belongs to."""
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def level(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it: `clipbench.trial`, `torch.func`."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(file: Path, places: tuple[str, ...]) -> bool:
    path = file.relative_to(ROOT).as_posix()
    return any(path == place or (place.endswith("/") and path.startswith(place)) for place in places)


def test_every_module_has_its_place_in_the_layers():
    found = {part(file) for file in FILES} - {"__init__"}
    placed = [name for names in LAYERS for name in names]
    assert found == set(placed)
    assert len(placed) == len(set(placed))


@every_file
def test_imports_run_one_way(file):
    for name in imports(file):
        package, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if package != "clipbench" or target == part(file) or target.startswith("__"):
            continue
        assert part(file) == "__init__" or level(target) < level(part(file)), f"{part(file)} imports {target}"


def test_no_module_imports_itself_through_others():
    """Imports for type checking count too: two modules that know each other are one, or need a third."""
    modules = {".".join(("clipbench", *file.relative_to(ROOT).with_suffix("").parts)): file for file in FILES}
    graph = {
        name.removesuffix(".__init__"): {
            target if target in modules or f"{target}.__init__" in modules else target.rpartition(".")[0]
            for target in imports(file)
            if target.startswith("clipbench.")
        }
        for name, file in modules.items()
        if file != ROOT / "__init__.py"  # which every import of a module runs first
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises a CycleError that names the modules


def test_rules_are_named_only_where_they_are_written():
    """What other code needs to know of a rule is a fact that the rule declares, not a comparison with its name."""
    from clipbench.plugins import registry

    rules = set(registry.catalogue("strategy"))
    words = {word for word in rules if "_" not in word and word not in COINED}  # that may mean something else
    for file in FILES:
        if within(file, ("plugins/strategies/",)):
            continue
        tree = parsed(file)
        literals = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in rules - words]
        found = [ast.unparse(node) for node in literals]
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):  # clip.name == "none", arm.strategy in ("norm", "value")
                sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
                about_rule = any(side.endswith(("name", "names", "strategy", "arm")) for side in sides)
                found += [side for side in sides if about_rule and _names(side, rules)]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("Component.of", "find", "registry.find"):
                found += [ast.unparse(each) for each in node.args if _names(ast.unparse(each), rules)]
            elif isinstance(node, ast.Tuple | ast.List | ast.Set):  # a list of rules
                several = [each.value for each in node.elts if isinstance(each, ast.Constant) and each.value in rules]
                found += several if len(several) > 1 else []
            elif isinstance(node, ast.Assign) and not within(file, ("plugins/registry.py",)):
                found += (
                    [ast.unparse(node)] if isinstance(node.value, ast.Constant) and node.value.value in rules else []
                )
            elif isinstance(node, ast.AnnAssign | ast.keyword) and node.value is not None:
                target = node.arg if isinstance(node, ast.keyword) else ast.unparse(node.target)
                found += [target] if target == "baseline" and _names(ast.unparse(node.value), rules) else []
        assert not found, f"{file.relative_to(ROOT)} names rules: {found}"
    assert [name for name, rule in registry.catalogue("strategy").items() if not rule.clips] == [registry.UNCLIPPED]


def _names(source: str, rules: set[str]) -> bool:
    return any(f"{quote}{rule}{quote}" in source for rule in rules for quote in "'\"")


def test_what_users_import_is_light():
    imported = {name for name in imports(ROOT / "__init__.py") if name.startswith("clipbench.")}
    assert {name.rpartition(".")[2] for name in imported} <= set(clipbench.__all__)
    unwanted = (*HEAVY, "numpy", "pydantic", "yaml", "typer", "rich", "clipbench.cli", "clipbench.commands.session")
    code = f"import sys, clipbench; print([name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_plugins_import_only_decorators_the_registry_and_libraries():
    plugins = [file for file in FILES if part(file) == "plugins" and set(PLUGINS) & {*file.parts, file.stem}]
    assert len(plugins) > 10
    known = {name for file in plugins for name in imports(file) if name.startswith("clipbench")}
    assert {name.rpartition(".")[0] for name in known} == {"clipbench.plugins.decorators", "clipbench.plugins.registry"}


@every_file
def test_outside_libraries_are_known_where_they_belong(file):
    for name in imports(file):
        homes = HOMES.get(name.partition(".")[0])
        assert homes is None or within(file, homes), f"{name} in {file.relative_to(ROOT)}"


def test_the_command_line_starts_without_what_it_may_not_need():
    code = f"import sys, clipbench.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@every_file
def test_only_the_command_line_prints_and_exits(file):
    if within(file, SPEAKS):
        return
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            streams = {keyword.arg for keyword in node.keywords}
            assert called != "print" or "file" in streams, f"print in line {node.lineno}"
            assert called not in ("sys.exit", "exit", "quit"), f"{called} in line {node.lineno}"
        if isinstance(node, ast.Raise) and node.exc:
            assert not ast.unparse(node.exc).startswith(("SystemExit", "typer.")), f"exit in line {node.lineno}"


def unpickled(tree: ast.Module, allowed: set[str]) -> Iterator[str]:
    """What a file may read a pickle with, by its full name, whatever the file calls it."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute | ast.Name | ast.Call):
            continue
        first, dot, rest = ast.unparse(node.func if isinstance(node, ast.Call) else node).partition(".")
        module, _, name = (full := f"{known.get(first, first)}{dot}{rest}").rpartition(".")
        if {name, full} & UNPICKLES or (module in PICKLES and name not in allowed):
            yield full
        elif isinstance(node, ast.Call) and full in PLAIN:
            option, wanted = PLAIN[full]
            given = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == option]
            if given != [str(wanted)]:
                yield f"{full} without {option}={wanted}"


@every_file
def test_no_call_reads_a_pickle_that_others_may_have_written(file):
    allowed = MAY_PICKLE.get(file.relative_to(ROOT).as_posix(), set())
    assert list(unpickled(parsed(file), allowed)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import torch; torch.load(path)",
        "import torch as t; t.load(path, weights_only=False)",
        "from torch import load as read; read(path, 'cpu')",
        "import torch; torch.load(path, weights_only=choice)",
        "import numpy as np; np.load(path)",
        "import numpy; numpy.load(path, allow_pickle=True)",
        "import pandas as pd; pd.read_pickle(path)",
        "import pickle; pickle.loads(text)",
        "import pickle; read = pickle.Unpickler",
        "from pickle import loads as read; read(text)",
        "import pickle as p; p.load(file)",
        "import joblib; joblib.load(path)",
        "import mlflow; mlflow.pytorch.load_model(uri)",
        "from torch import jit; jit.load(path)",
        "import yaml; yaml.unsafe_load(text)",
    ],
)
def test_calls_that_read_pickles_are_found(code):
    assert list(unpickled(ast.parse(code), set()))


@every_file
def test_a_module_says_in_its_first_sentence_what_it_owns(file):
    text = ast.get_docstring(parsed(file)) or ""
    assert len(text.split()) >= 3 and text.splitlines()[0][-1] in ".:;,?", text


def test_no_file_and_no_class_has_the_name_of_another():
    """A name is enough to find what it names; `__init__.py` and `README.md` belong to their folders."""
    files = Counter(file.name for file in FILES if file.name != "__init__.py")
    classes = Counter(node.name for file in FILES for node in parsed(file).body if isinstance(node, ast.ClassDef))
    public = {name: count for name, count in classes.items() if not name.startswith("_")}
    assert [name for name, count in {**files, **public}.items() if count > 1] == []


@every_file
def test_a_file_holds_one_idea(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


PACKAGES = sorted({".".join(("clipbench", *file.parent.relative_to(ROOT).parts)) for file in FILES})


@pytest.mark.parametrize("name", PACKAGES)
def test_no_function_hides_a_module_of_its_name(name):
    """`import clipbench; clipbench.run` must mean one thing."""
    package = importlib.import_module(name)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    hidden = {key for key in modules if inspect.isroutine(getattr(package, key, None))}
    assert hidden == HIDDEN.get(name, set())


@every_file
def test_nothing_reaches_into_what_another_file_keeps_for_itself(file):
    private = [
        name for name in imports(file) if name.startswith("clipbench.") and name.rpartition(".")[2].startswith("_")
    ]
    assert [name for name in private if not name.endswith("__version__")] == []
