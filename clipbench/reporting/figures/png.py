"""A drawing as PNG, shape by shape what the SVG shows; the one place that knows matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from clipbench.reporting.figures.drawing import COLORS, TITLE, Area, Drawing, Line, Mark, Shape, Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 200
INCH = 96.0  # pixels of a drawing, as in CSS
POINT = 72.0 / INCH
MARKERS = {"circle": "o", "ring": "o", "square": "s", "diamond": "D", "cross": "x"}


def render(drawing: Drawing) -> bytes:
    """The picture on white paper, fine enough for print."""
    from matplotlib.figure import Figure  # it takes half a second, and no report needs it

    figure = Figure(figsize=(drawing.width / INCH, drawing.height / INCH), dpi=DPI, facecolor=COLORS["paper"])
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, drawing.width)
    axes.set_ylim(drawing.height, 0)
    for order, shape in enumerate(drawing.shapes):
        _draw(axes, shape, order)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Title": drawing.title, "Description": drawing.description})
    return buffer.getvalue()


def _draw(axes: Axes, shape: Shape, order: int) -> None:
    color = COLORS[shape.color]
    if isinstance(shape, Line):
        xs, ys = zip(*shape.points, strict=True)
        dash: Any = (0, [float(part) / shape.width for part in shape.dash.split()]) if shape.dash else "-"
        axes.plot(xs, ys, color=color, linewidth=shape.width * POINT, linestyle=dash, zorder=order)
    elif isinstance(shape, Area):
        xs, ys = zip(*shape.points, strict=True)
        axes.fill(xs, ys, color=color, alpha=shape.opacity, linewidth=0, zorder=order)
    elif isinstance(shape, Mark):
        _mark(axes, shape, color, order)
    else:
        _words(axes, shape, color, order)


def _mark(axes: Axes, mark: Mark, color: str, order: int) -> None:
    axes.plot(
        [mark.x],
        [mark.y],
        MARKERS[mark.shape],
        markersize=2 * mark.size * POINT,
        markerfacecolor="none" if mark.shape == "ring" else color,
        markeredgecolor=color,
        markeredgewidth=1.5 if mark.shape in ("ring", "cross") else 0,
        zorder=order,
    )


def _words(axes: Axes, words: Words, color: str, order: int) -> None:
    axes.text(
        words.x,
        words.y,
        words.text.replace("$", r"\$"),  # no mathematics in a user's names
        color=color,
        fontsize=words.size * POINT,
        fontweight="bold" if words.bold or words.size > TITLE else "normal",
        ha={"start": "left", "middle": "center", "end": "right"}[words.anchor],
        va="baseline",
        zorder=order,
    )
