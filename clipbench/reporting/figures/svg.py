"""A drawing as SVG: text stays text, and a page may give the colours of its theme."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from clipbench.reporting.figures.drawing import COLORS, TITLE, Area, Drawing, Line, Mark, Points, Shape, Words

FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
# What XML cannot hold at all.
FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(drawing: Drawing) -> str:
    """A document of its own, on white paper."""
    paper = Area(_whole(drawing), "paper", 1.0)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + _svg(drawing, (paper, *drawing.shapes), standalone=True)


def inline(drawing: Drawing) -> str:
    """A part of an HTML page, which gives paper and colours."""
    return _svg(drawing, drawing.shapes, standalone=False)


def _svg(drawing: Drawing, shapes: tuple[Shape, ...], *, standalone: bool) -> str:
    size = f"{drawing.width:g} {drawing.height:g}"
    label = quoteattr(_clean(f"{drawing.title}. {drawing.description}".strip()))
    name = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
    fixed = f' width="{drawing.width:g}" height="{drawing.height:g}"' if standalone else ""
    opening = f'<svg{name} viewBox="0 0 {size}"{fixed} role="img" aria-label={label} font-family="{FONT}">'
    title = f"<title>{_text(drawing.title)}</title><desc>{_text(drawing.description)}</desc>" if standalone else ""
    return "\n".join([opening + title, *(_shape(shape) for shape in shapes), "</svg>"]) + "\n"


def _shape(shape: Shape) -> str:
    if isinstance(shape, Line):
        dash = f' stroke-dasharray="{shape.dash}"' if shape.dash else ""
        look = f'fill="none" stroke="currentColor" stroke-width="{shape.width:g}"{dash} stroke-linejoin="round"'
        return f'<path {_color(shape.color)} d="{_path(shape.points)}" {look}/>'
    if isinstance(shape, Area):
        opacity = f' fill-opacity="{shape.opacity:g}"' if shape.opacity < 1 else ""
        return f'<path {_color(shape.color)} d="{_path(shape.points)}Z" fill="currentColor"{opacity}/>'
    if isinstance(shape, Mark):
        return _mark(shape)
    return _words(shape)


def _mark(mark: Mark) -> str:
    title = f"<title>{_text(mark.title)}</title>" if mark.title else ""
    line = ' fill="none" stroke="currentColor" stroke-width="2"' if mark.shape in ("cross", "ring") else ""
    line = line or ' fill="currentColor"'
    if mark.shape in ("circle", "ring"):
        place = f'cx="{mark.x:.1f}" cy="{mark.y:.1f}" r="{mark.size:g}"'
        return f"<circle {_color(mark.color)} {place}{line}>{title}</circle>"
    return f'<path {_color(mark.color)} d="{"".join(_outline(mark))}"{line}>{title}</path>'


def _outline(mark: Mark) -> Iterator[str]:
    x, y, size = mark.x, mark.y, mark.size
    if mark.shape == "cross":
        yield f"M{x - size:.1f} {y - size:.1f}L{x + size:.1f} {y + size:.1f}"
        yield f"M{x - size:.1f} {y + size:.1f}L{x + size:.1f} {y - size:.1f}"
    elif mark.shape == "diamond":
        size *= 1.35
        yield f"{_path(((x, y - size), (x + size, y), (x, y + size), (x - size, y)))}Z"
    else:
        yield f"{_path(((x - size, y - size), (x + size, y - size), (x + size, y + size), (x - size, y + size)))}Z"


def _words(words: Words) -> str:
    anchor = f' text-anchor="{words.anchor}"' if words.anchor != "start" else ""
    weight = ' font-weight="600"' if words.bold or words.size > TITLE else ""
    place = f'x="{words.x:.1f}" y="{words.y:.1f}" font-size="{words.size:g}"'
    return f'<text {_color(words.color)} {place} fill="currentColor"{anchor}{weight}>{_text(words.text)}</text>'


def _color(name: str) -> str:
    return f'class="{name}" color="{COLORS[name]}"'


def _path(points: Points) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _whole(drawing: Drawing) -> Points:
    return ((0, 0), (drawing.width, 0), (drawing.width, drawing.height), (0, drawing.height))


def _text(text: str) -> str:
    return escape(_clean(text))


def _clean(text: str) -> str:
    return FORBIDDEN.sub("�", text)
