"""Reads drawings back: the shapes of an SVG with their places in pixels, and their values by the labels of the axes."""

import functools
import html
import json
import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
MEASURE = """<!doctype html><meta charset="utf-8"><body>%s<pre id="found"></pre><script>
document.getElementById("found").textContent = JSON.stringify([...document.querySelectorAll("svg")].map((svg) =>
  [...svg.querySelectorAll("text")].map((text) => { const b = text.getBBox(); return [b.x, b.y, b.width, b.height]; })));
</script>"""


@dataclass
class Shape:
    """`kind` is text, line, area, box or mark; `points` its corners, or the one place of a text or a mark."""

    kind: str
    points: list[tuple[float, float]]
    color: str
    look: dict[str, str] = field(default_factory=dict)
    text: str = ""  # of a text, or what a mark or a box says when the pointer rests on it

    @property
    def x(self):
        return self.points[0][0]

    @property
    def y(self):
        return self.points[0][1]

    @property
    def shape(self):
        return self.look["data-mark"]

    @property
    def opacity(self):
        return float(self.look["fill-opacity"])


class Drawing:
    """The shapes of a panel."""

    def __init__(self, panel):
        self.root = ElementTree.fromstring(panel.svg)
        self.title, self.label = panel.title, self.root.attrib["aria-label"]
        self.width, self.height = (float(number) for number in self.root.attrib["viewBox"].split()[2:])
        self.shapes = [_shape(element) for element in self.root]

    def of(self, kind, color=None):
        return [shape for shape in self.shapes if shape.kind == kind and color in (None, shape.color)]

    @property
    def marks(self):
        return self.of("mark")

    @property
    def words(self):
        return [text.text for text in self.of("text")]

    def by_name(self):
        """Marks by the arm that they name."""
        return {re.split("[:,]", mark.text)[0]: mark for mark in self.marks if mark.text}

    def value_at_x(self, x, bottom, *, log=False):
        """What an axis whose labels are written just below `bottom` shows at a place."""
        labels = [(text.x, text.text) for text in self.of("text") if abs(text.y - bottom - 16) < 0.2]
        return _value(labels, x, log=log)

    def value_at_y(self, y, top, bottom, *, log=False):
        """What an axis whose labels are written at the left, between two heights, shows at a place."""
        labels = [text for text in self.of("text") if text.look["text-anchor"] == "end" and top <= text.y - 4 <= bottom]
        left = min(text.x for text in labels)
        return _value([(text.y - 4, text.text) for text in labels if text.x == left], y, log=log)


def _shape(element):
    kind = element.tag.rpartition("}")[2]
    look, text = dict(element.attrib), "".join(element.itertext())
    numbers = [float(number) for number in NUMBER.findall(element.attrib.get("d", ""))]
    if kind == "text":
        points = [(float(look["x"]), float(look["y"]))]
    elif kind == "rect":
        x, y, width, height = (float(look[name]) for name in ("x", "y", "width", "height"))
        kind, points = "box", [(x, y), (x + width, y + height)]
    elif "data-mark" in look:
        kind, points = "mark", [tuple(float(number) for number in NUMBER.findall(look["transform"]))]
    else:
        kind = "line" if look["fill"] == "none" else "area"
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
    return Shape(kind, points, look["class"], look, text)


def number(label):
    """`0.001`, `10⁻⁵`, `2·10⁶`."""
    power = re.fullmatch(r"(?:([\d.-]+)·)?10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", label)
    return float(power[1] or 1) * 10.0 ** float(power[2].translate(SUPERSCRIPTS)) if power else float(label)


def _value(labels, place, *, log):
    places = [place for place, _ in labels]
    values = [number(text) for _, text in labels]
    assert len(labels) > 1
    slope, start = np.polyfit(places, np.log10(values) if log else values, 1)
    found = slope * place + start
    return 10**found if log else found


def check_places(drawing):
    """Everything is drawn inside the panel, at finite places."""
    for shape in drawing.shapes:
        for x, y in shape.points:
            assert math.isfinite(x) and math.isfinite(y)
            assert -0.1 <= x <= drawing.width + 0.1 and -0.1 <= y <= drawing.height + 0.1, (drawing.title, shape)


def clashes(drawing, boxes):
    """Pairs of texts of which one covers the other, and texts that leave the panel."""
    texts = [(words, box) for words, box in zip(drawing.words, boxes, strict=True) if words]
    found = [
        (one, other)
        for n, (one, box) in enumerate(texts)
        for other, second in texts[n + 1 :]
        if _shared(box, second, 0) > 0.5 and _shared(box, second, 1) > 3.5  # a line's box has room above and below
    ]
    outside = [words for words, (x, _, width, _) in texts if x < -1 or x + width > drawing.width + 1]
    return found + outside


def _shared(one, other, axis):
    return min(one[axis] + one[axis + 2], other[axis] + other[axis + 2]) - max(one[axis], other[axis])


def font_boxes(drawing):
    """Place and size of each text in DejaVu Sans, which is wider than most fonts."""
    found = []
    for text in drawing.of("text"):
        size, bold = float(text.look["font-size"]), "font-weight" in text.look
        width = _width(text.text, size, "bold" if bold else "normal")
        left = {"start": 0.0, "middle": width / 2, "end": width}[text.look["text-anchor"]]
        found.append((text.x - left, text.y - 0.93 * size, width, 1.16 * size))
    return found


@functools.cache
def _width(text, size, weight):
    font = FontProperties(family="DejaVu Sans", weight=weight, size=size)
    return text_to_path.get_text_width_height_descent(text.replace("$", r"\$"), font, ismath=False)[0]


def browser_boxes(folder, drawings):
    """Place and size of each text of each drawing, as Chromium sets it."""
    page = folder / "figures.html"
    parts = "".join(ElementTree.tostring(drawing.root, encoding="unicode") for drawing in drawings)
    page.write_text(MEASURE % parts, encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))
