"""Errors that a user sees, the places in files where they occurred, and suggestions for misspelt names.

ClipbenchError            the command failed; the message says what to do        exit code 1
├── InputError            the input is wrong, with every mistake and its place   exit code 2
└── Unsupported           a user's own function cannot be used as it is; becomes an InputError, or a failed trial
ClipbenchWarning          something to know, while the command goes on
UnknownName               no plug-in has that name; callers turn it into an InputError
"""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

# Characters of a message, of a way out (which may list names), of a key and of what a user's own function says.
TEXT, REMEDY, KEY, LONG = 300, 2000, 160, 160
MOST_PROBLEMS = 100  # that are written out
# What a terminal would obey: control characters but tab and newline, and those that turn the direction of text.
CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")

ALLOCATED = re.compile(r"tried to allocate (\d+) bytes")  # of torch, on a CPU

S = TypeVar("S")
T = TypeVar("T")


def without_control(text: str) -> str:
    """Return a text for a terminal, with control characters as Python writes them: `\\x1b`."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def json_without_control(text: str) -> str:
    """Return a JSON text with control characters as JSON writes them, `\\u001b`; it holds the same values."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shortened(text: str, longest: int) -> str:
    """Return a text without its middle if it is longer than that many characters."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[3 - half :]}"


@dataclass(frozen=True, order=True)
class Place:
    """A position in a file that a user wrote, and the YAML key that it belongs to."""

    file: str
    line: int = 0  # from 1; 0 = the file as a whole
    column: int = 0
    key: str = ""  # as a user would write it: `clip[1].threshold`

    def __str__(self) -> str:
        file = shortened(self.file.replace("\n", "\\n"), TEXT)  # a message is one line
        position = f"{file}:{self.line}:{self.column}" if self.line else file
        return f"{position}: {shortened(self.key, KEY)}" if self.key else position


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake. `text` says what is wrong and what was got; `remedy` is the way out. Neither is ever long."""

    place: Place
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", shortened(self.text, TEXT))
        object.__setattr__(self, "remedy", shortened(self.remedy, REMEDY))

    def __str__(self) -> str:
        sentence = f"{self.place}: {self.text}"
        return f"{sentence} {self.remedy}" if self.remedy else sentence


class ClipbenchError(Exception):
    """The command failed, and its message says what to do."""

    exit_code = 1


class InputError(ClipbenchError):
    """The input is wrong: every mistake at once, and nothing was started."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems))
        more = len(self.problems) - MOST_PROBLEMS
        lines = [str(problem) for problem in self.problems[:MOST_PROBLEMS]]
        super().__init__("\n".join([*lines, *([f"... and {more:,} more problems."] if more > 0 else [])]))

    @classmethod
    def at(cls, place: Place, text: str, remedy: str = "") -> InputError:
        """The error of a single problem."""
        return cls([Problem(place, text, remedy)])

    def __reduce__(self) -> tuple[type[InputError], tuple[list[Problem]]]:
        """Keep the problems when the error is sent to another process."""
        return InputError, (self.problems,)


class Unsupported(ClipbenchError):
    """A user's own function cannot be used as it is: `text` says why, `remedy` what to change."""

    def __init__(self, text: str, remedy: str, key: str = "model") -> None:
        super().__init__(text, remedy, key)
        self.text, self.remedy, self.key = text, remedy, key  # the key in the YAML that names the function

    def __str__(self) -> str:
        return f"{self.text} {self.remedy}".rstrip()


def first_sentence(error: BaseException) -> str:
    """Return the first line of a message; of a long one the first sentence."""
    line = (str(error).strip().splitlines() or ["no message"])[0]
    return line if len(line) <= LONG else shortened(line.partition(". ")[0], LONG)


def described(error: BaseException) -> str:
    """Return the type and the message of an error that a user's own function raised."""
    if found := ALLOCATED.search(str(error)):
        return f"there is not enough memory: it asked for {int(found[1]) / 1e9:,.3g} GB at once."
    return f"{type(error).__name__}: {first_sentence(error).rstrip('.')}."


def is_of_function(error: BaseException) -> bool:
    """Whether a function of the user's has raised it, and not the user: a worker ignores Ctrl-C."""
    return isinstance(error, Exception | SystemExit) or signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@contextmanager
def blamed(key: str, problem: str, remedy: str = "") -> Iterator[None]:
    """Turn any error of a user's own function that is called within into Unsupported."""
    try:
        yield
    except ClipbenchError:
        raise
    except BaseException as error:
        if not is_of_function(error):
            raise
        raise Unsupported(f"{problem}: {described(error)}", remedy, key) from error


@dataclass
class Findings:
    """The problems and notes that are gathered while an input is read, so that all of them are reported at once."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, place: Place, text: str, remedy: str = "") -> None:
        self.problems.append(Problem(place, text, remedy))

    def has_problem_in(self, section: str) -> bool:
        return any(re.match(rf"{section}\b", problem.place.key) for problem in self.problems)

    def note(self, text: str) -> None:
        text = shortened(text, REMEDY)
        if text not in self.notes:
            self.notes.append(text)

    def raise_if_any(self) -> None:
        if self.problems:
            raise InputError(self.problems)

    def attempt(self, read: Callable[[], T]) -> T | None:
        """Return what `read` returns; None if it raises InputError, whose problems are added to these."""
        try:
            return read()
        except InputError as error:
            self.problems += error.problems
            return None


def gather(read: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """Return what `read` makes of each item; raise one InputError with the problems of all items."""
    found: list[T] = []
    problems: list[Problem] = []
    for item in items:
        try:
            found.append(read(item))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return found


class ClipbenchWarning(UserWarning):
    """Something that the user should know, while the command goes on."""


class UnknownName(LookupError):
    """No plug-in has that name; `remedy` suggests a similar name or lists the known ones."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.text = text
        self.remedy = remedy


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A sentence that suggests the most similar known name, or lists all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.6)
    if near:
        return f"Did you mean `{near[0]}`?"
    return f"Known: {', '.join(known)}." if known else "No names are available."
