"""Text as sequences of characters; the task is to predict each from those before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from annotated_types import Ge

from clipbench.plugins.decorators import dataset
from clipbench.plugins.registry import DataProblem, File

Arrays = tuple[np.ndarray, np.ndarray]


@dataset()
def text(
    path: File = "",
    length: Annotated[int, Ge(1)] = 64,
    characters: Annotated[int, Ge(1)] | None = 100_000,
    shares: Mapping[str, float] | None = None,
) -> dict[str, Arrays]:
    """Windows of `length` characters of a file; the targets are the next characters. Without `path`: Python's help.

    The first `characters` of the file, in UTF-8, are cut in order: train, val, test. Characters that do not occur in
    the training part are one symbol.
    """
    content = _content(path)[:characters]
    held_out = {"val": 0.2, "test": 0.2, **(shares or {})}
    ends = [0, *(round(len(content) * (1 - held_out["val"] * has_val - held_out["test"])) for has_val in (1, 0))]
    cuts = dict(zip(("train", "val", "test"), zip(ends, [*ends[1:], len(content)], strict=True), strict=True))
    vocabulary = {character: number for number, character in enumerate(sorted(set(content[: ends[1]])))}
    parts = {}
    for name, (start, end) in cuts.items():
        if end - start > length:
            parts[name] = _windows(content[start:end], vocabulary, length)
        elif end > start or name == "train":
            raise DataProblem(f"the {name} part has {end - start} characters, too few for a window of {length}.")
    return parts


def _content(path: str) -> str:
    if not path:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (UnicodeDecodeError, OSError) as error:
        raise DataProblem(f"{path} is not a UTF-8 text file: {error}") from None


def _windows(content: str, vocabulary: Mapping[str, int], length: int) -> Arrays:
    """Return consecutive windows; each starts with the last target of the previous one."""
    codes = np.array([vocabulary.get(character, len(vocabulary)) for character in content])
    count = (len(codes) - 1) // length
    return codes[: count * length].reshape(count, length), codes[1 : count * length + 1].reshape(count, length)
