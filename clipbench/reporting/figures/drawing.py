"""What a figure is made of: panels of shapes at places in pixels, written as SVG in colours that a page may theme."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from clipbench.errors import CONTROL

# Okabe and Ito's colours, which people who see red and green alike can tell apart. `style.css` has them for dark pages.
COLORS = {
    "ink": "#1b1f24",
    "muted": "#5b6470",
    "grid": "#dfe3e8",
    "paper": "#ffffff",
    "blue": "#0072b2",
    "orange": "#d55e00",
    "green": "#00795a",
    "gray": "#8a929c",
}
FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
TEXT, SMALL, TITLE, HEADLINE = 12.0, 11.0, 13.0, 16.0
LETTER = 0.62  # width of a letter as a share of its height: an estimate for layout, that of a wide font
GAP = 24.0  # between the panels of a file
NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
Point = tuple[float, float]


@dataclass
class Panel:
    """One drawing below its heading. Each method adds a shape on top; the description is the alternative text."""

    width: float
    height: float
    title: str
    description: str = ""
    heading: str = ""
    shapes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.heading:
            words = shortened(self.heading, 0.9 * self.width, TITLE)
            self.text(0, 14, words, size=TITLE, color="ink", bold=True)

    def line(self, points: Iterable[Point], color: str, width: float = 1.5, dash: str = "") -> None:
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        look = f'fill="none" stroke="currentColor" stroke-width="{width:g}"{dashes} stroke-linejoin="round"'
        self.shapes.append(f'<path class="{color}" d="{_path(points)}" {look}/>')

    def area(self, points: Iterable[Point], color: str, opacity: float = 0.2) -> None:
        self.shapes.append(
            f'<path class="{color}" d="{_path(points)}Z" fill="currentColor" fill-opacity="{opacity:g}"/>'
        )

    def box(
        self, x: float, y: float, width: float, height: float, color: str, opacity: float = 1.0, title: str = ""
    ) -> None:
        shape = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill-opacity="{opacity:g}"'
        tip = f"<title>{_text(title)}</title>" if title else ""
        self.shapes.append(f'<rect class="{color}" {shape} fill="currentColor">{tip}</rect>')

    def mark(self, x: float, y: float, color: str, shape: str = "circle", title: str = "", size: float = 4.0) -> None:
        """A data point as a circle, ring, square, diamond or cross; `title` is shown when the pointer rests on it."""
        is_open = shape in ("cross", "ring")
        look = 'fill="none" stroke="currentColor" stroke-width="2"' if is_open else 'fill="currentColor"'
        tip = f"<title>{_text(title)}</title>" if title else ""
        place = f'data-mark="{shape}" transform="translate({x:.1f} {y:.1f})"'
        self.shapes.append(f'<path class="{color}" {place} d="{_outline(shape, size)}" {look}>{tip}</path>')

    def text(
        self,
        x: float,
        y: float,
        words: str,
        anchor: str = "start",
        size: float = SMALL,
        color: str = "muted",
        *,
        bold: bool = False,
    ) -> None:
        """Words whose start, middle or end is at x, as `anchor` says."""
        look = f'text-anchor="{anchor}"' + (' font-weight="600"' if bold else "")
        place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size:g}"'
        self.shapes.append(f'<text class="{color}" {place} fill="currentColor" {look}>{_text(words)}</text>')

    @property
    def svg(self) -> str:
        """An element of an HTML page, whose style sheet says what colour each class has."""
        label = _text(f"{self.title}. {self.description}")
        box = f'viewBox="0 0 {self.width:g} {self.height:g}"'
        return f'<svg {box} role="img" aria-label="{label}" font-family="{FONT}">{"".join(self.shapes)}</svg>\n'


@dataclass(frozen=True)
class Figure:
    """Panels beside one another that answer one question, with the words that explain them."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    columns: int = 3

    @property
    def svg(self) -> str:
        """A file that stands alone: title, caption and panels on white."""
        sheet = self._sheet()
        size = f'viewBox="0 0 {sheet.width:g} {sheet.height:g}" width="{sheet.width:g}" height="{sheet.height:g}"'
        words = f"<title>{_text(self.title)}</title><desc>{_text(sheet.description)}</desc>"
        opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{FONT}">{words}'
        shapes = "\n".join(sheet.shapes)
        for name, color in COLORS.items():
            shapes = shapes.replace(f'class="{name}"', f'class="{name}" color="{color}"')
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{opening}\n{shapes}\n</svg>\n'

    @property
    def png(self) -> bytes:
        """The same as a picture, fine enough for print."""
        import matplotlib  # for its fonts: the machine may have none
        import resvg_py

        fonts = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf")
        return bytes(resvg_py.svg_to_bytes(self.svg, zoom=2, font_dirs=[fonts], sans_serif_family="DejaVu Sans"))

    def _sheet(self) -> Panel:
        rows = [self.panels[start : start + self.columns] for start in range(0, len(self.panels), self.columns)]
        width = max(sum(panel.width + GAP for panel in row) + GAP for row in rows)
        described = " ".join(dict.fromkeys(panel.description for panel in self.panels))
        title, caption = _wrapped(self.title, width - 2 * GAP, HEADLINE), _wrapped(self.caption, width - 2 * GAP, TEXT)
        top = 30.0 + 20 * len(title) + 16 * len(caption)
        height = top + sum(max(panel.height for panel in row) + GAP for row in rows)
        sheet = Panel(width, height, self.title, described)
        sheet.box(0, 0, width, height, "paper")
        for number, line in enumerate(title):
            sheet.text(GAP, 30 + 20 * number, line, size=HEADLINE, color="ink", bold=True)
        for number, line in enumerate(caption):
            sheet.text(GAP, 30 + 20 * len(title) + 16 * number, line, size=TEXT)
        for row in rows:
            left = GAP
            for panel in row:
                sheet.shapes += [f'<g transform="translate({left:g} {top:g})">', *panel.shapes, "</g>"]
                left += panel.width + GAP
            top += max(panel.height for panel in row) + GAP
        return sheet


def width_of(text: str, size: float = TEXT) -> float:
    return LETTER * size * len(text)


def shortened(text: str, width: float, size: float = TEXT) -> str:
    """The text, or as much of it as fits into a width."""
    most = max(2, int(width / (LETTER * size)))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def left_margin(labels: Sequence[str], most: float, gap: float = 10.0, size: float = TEXT) -> float:
    """Room for the longest of the labels beside an axis, but not more than `most`."""
    return min(most, max(width_of(label, size) for label in labels) + gap)


def _wrapped(text: str, width: float, size: float) -> list[str]:
    return textwrap.wrap(text, int(width / (LETTER * size)))


def _outline(shape: str, size: float) -> str:
    s, d = f"{size:g}", f"{1.35 * size:g}"
    return {
        "cross": f"M-{s} -{s}L{s} {s}M-{s} {s}L{s} -{s}",
        "diamond": f"M0 -{d}L{d} 0L0 {d}L-{d} 0Z",
        "square": f"M-{s} -{s}H{s}V{s}H-{s}Z",
    }.get(shape, f"M-{s} 0a{s} {s} 0 1 0 {2 * size:g} 0a{s} {s} 0 1 0 -{2 * size:g} 0Z")


def _path(points: Iterable[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _text(text: str) -> str:
    return escape(CONTROL.sub("\N{REPLACEMENT CHARACTER}", NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)))
