"""What a figure is made of: shapes at places in pixels, the same for every format that draws them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

Points = tuple[tuple[float, float], ...]

# Okabe and Ito's colours, told apart by people who see red and green alike; a role keeps its name in every theme.
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
TEXT, SMALL, TITLE = 12.0, 11.0, 13.0
# Of the height of a letter: there is no font to measure, and an estimate that is a little wide is safe.
LETTER = 0.56


@dataclass(frozen=True)
class Line:
    points: Points
    color: str = "ink"
    width: float = 1.5
    dash: str = ""


@dataclass(frozen=True)
class Area:
    points: Points
    color: str
    opacity: float = 0.2


@dataclass(frozen=True)
class Mark:
    """A data point. `title` is shown where one can hover."""

    x: float
    y: float
    color: str = "blue"
    shape: str = "circle"  # or square, diamond, cross, ring
    size: float = 4.0
    title: str = ""


@dataclass(frozen=True)
class Words:
    x: float
    y: float
    text: str
    anchor: str = "start"  # or middle, end
    size: float = TEXT
    bold: bool = False
    color: str = "ink"


Shape = Line | Area | Mark | Words


@dataclass(frozen=True)
class Drawing:
    """Shapes on a sheet. The description says what is seen to those who do not see it."""

    width: float
    height: float
    shapes: tuple[Shape, ...]
    title: str
    description: str = ""


@dataclass(frozen=True)
class Figure:
    """One statement in pictures: drawings of one size beside one another, with the words that explain them."""

    name: str
    title: str
    caption: str
    cells: tuple[Drawing, ...]
    columns: int = 3


def rectangle(x: float, y: float, width: float, height: float) -> Points:
    return ((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def width_of(text: str, size: float = TEXT) -> float:
    return LETTER * size * len(text)


def shortened(text: str, width: float, size: float = TEXT) -> str:
    """The text, or what of it fits into a width."""
    most = max(2, int(width / (LETTER * size)))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def sheet(figure: Figure, gap: float = 24.0) -> Drawing:
    """All drawings of a figure on one sheet, under its title."""
    columns = min(figure.columns, len(figure.cells))
    width = max(sum(cell.width for cell in row) + gap * (len(row) + 1) for row in _rows(figure.cells, columns))
    lines = [*_wrapped(figure.title, width - 2 * gap, 16.0)]
    shapes: list[Shape] = [Words(gap, 30 + 20 * n, line, size=16.0, bold=True) for n, line in enumerate(lines)]
    top = 30.0 + 20 * len(lines)
    for n, line in enumerate(_wrapped(figure.caption, width - 2 * gap, TEXT)):
        shapes.append(Words(gap, top + 16 * n, line, color="muted"))
    top += 16 * len(_wrapped(figure.caption, width - 2 * gap, TEXT))
    for row in _rows(figure.cells, columns):
        left = gap
        for cell in row:
            shapes += [moved(shape, left, top) for shape in cell.shapes]
            left += cell.width + gap
        top += max(cell.height for cell in row) + gap
    description = " ".join(dict.fromkeys(cell.description for cell in figure.cells if cell.description))
    return Drawing(width, top, tuple(shapes), figure.title, description)


def moved(shape: Shape, right: float, down: float) -> Shape:
    if isinstance(shape, Line | Area):
        return replace(shape, points=tuple((x + right, y + down) for x, y in shape.points))
    return replace(shape, x=shape.x + right, y=shape.y + down)


def _rows(cells: Sequence[Drawing], columns: int) -> Iterable[Sequence[Drawing]]:
    return [cells[start : start + columns] for start in range(0, len(cells), columns)]


def _wrapped(text: str, width: float, size: float) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and width_of(f"{lines[-1]} {word}", size) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return [line for line in lines if line]
