"""Texts that are held word by word: what a program says is compared with a file under tests/golden."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"
RENEW = "CLIPBENCH_RENEW"


def check_golden(name: str, text: str) -> None:
    """`text` must equal tests/golden/<name>. With CLIPBENCH_RENEW=1 it is written there instead.

    Space at the ends of lines is not compared: it is not seen, and editors take it away.
    """
    path = FOLDER / name
    text = "\n".join(line.rstrip() for line in text.splitlines()).rstrip() + "\n"
    if os.environ.get(RENEW):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    how = f"Read it, and if it is right: {RENEW}=1 pytest '{test}'"
    assert path.is_file(), f"{path} is missing. This is what was said:\n\n{text}\n{how}"
    assert text == path.read_text(encoding="utf-8"), f"{path} says something else. {how}"
