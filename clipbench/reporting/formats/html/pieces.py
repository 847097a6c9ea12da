"""What sections of the page are made of: explained words, figures, boxes of lines."""

from __future__ import annotations

from collections.abc import Sequence

from clipbench.reporting.figures import Figure, svg
from clipbench.reporting.formats.html.escape import text


def explained(term: str, meaning: str) -> str:
    """Words whose meaning is one hover, touch or key away."""
    tip = text(meaning)
    return f'<span tabindex="0" data-tip="{tip}" title="{tip}">{text(term)}</span>'


def figure(key: str, shown: Figure) -> str:
    """A figure with its title and caption, its drawings side by side where there is room."""
    wide = " wide" if shown.columns == 1 else ""
    cells = "".join(svg.inline(cell) for cell in shown.cells)
    return (
        f'<figure id="{key}-{shown.name}"><h3>{text(shown.title)}</h3>'
        f'<figcaption>{text(shown.caption)}</figcaption><div class="cells{wide}">{cells}</div></figure>'
    )


def items(kind: str, title: str, lines: Sequence[str], tip: str) -> str:
    """A box of lines that should not be overlooked; nothing where there are none."""
    return boxed(kind, title, [text(line) for line in lines], tip)


def boxed(kind: str, title: str, lines: Sequence[str], tip: str) -> str:
    """The same of lines that are HTML already."""
    if not lines:
        return ""
    written = "".join(f"<li>{line}</li>" for line in lines)
    return f'<div class="{kind}"><h4>{explained(title, tip)}</h4><ul>{written}</ul></div>'
