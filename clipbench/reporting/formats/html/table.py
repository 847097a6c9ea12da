"""A table of the report as HTML: sortable, its columns explained, its numbers exact on request."""

from __future__ import annotations

import math
from collections.abc import Iterator

from clipbench.analysis import verdicts
from clipbench.reporting import search_sentences
from clipbench.reporting.columns import Grid, Value
from clipbench.reporting.formats.html.escape import text

BADGES = ("verdict", "promise")
TONES = {
    verdicts.BEST: "good",
    verdicts.TIED: "good",
    verdicts.BETTER: "good",
    verdicts.WORSE: "bad",
    verdicts.UNDERPOWERED: "open",
    verdicts.BASELINE: "base",
    search_sentences.HELD: "good",
    search_sentences.TOO_GOOD: "open",
}
SIGNS = {"good": "▲ ", "bad": "▼ ", "open": "? ", "base": ""}
SIGNS |= {search_sentences.HELD: "✓ ", search_sentences.TOO_GOOD: "↓ ", search_sentences.TOO_MODEST: "↑ "}


def table(grid: Grid) -> str:
    return "".join(_table(grid))


def badge(word: str, tone: str) -> str:
    """A verdict; the sign and the word say what the colour says."""
    return f'<span class="badge {tone}">{SIGNS.get(word, SIGNS.get(tone, ""))}{text(word)}</span>'


def _table(grid: Grid) -> Iterator[str]:
    yield f'<div class="scroll" role="region" tabindex="0" aria-label="{text(grid.title)}"><table><thead><tr>'
    for header, meaning in zip(grid.headers, grid.meanings, strict=True):
        kind = ' class="words"' if header in grid.text else ""
        tip = f'data-tip="{text(meaning)}" title="{text(meaning)}"'
        yield f'<th scope="col"{kind}><button type="button" {tip}>{text(header)}</button></th>'
    yield "</tr></thead><tbody>"
    for cells, values in zip(grid.cells, grid.values, strict=True):
        yield "<tr>"
        found = "".join(cell for header, cell in zip(grid.headers, cells, strict=True) if header in BADGES)
        for number, (header, cell, value) in enumerate(zip(grid.headers, cells, values, strict=True)):
            yield _name(cell, found) if number == 0 else _cell(header, cell, value, is_words=header in grid.text)
        yield "</tr>"
    yield "</tbody></table></div>"


def _name(cell: str, found: str) -> str:
    """What stays in sight where a phone moves the table; the verdict stands below it there."""
    below = f' class="{TONES.get(found, "plain")}" data-verdict="{text(found)}"' if found else ""
    return f'<th scope="row"{below}>{text(cell)}</th>'


def _cell(header: str, cell: str, value: Value, *, is_words: bool) -> str:
    if header in BADGES:
        return f'<td class="words">{badge(cell, TONES.get(cell, "plain"))}</td>'
    sort = f' data-value="{value!r}"' if isinstance(value, float | int) and math.isfinite(value) else ""
    return f"<td{' class=words' if is_words else ''}{sort}>{text(cell)}</td>"
