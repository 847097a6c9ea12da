"""Draws the pictures of the documentation from a real run and a real search of the quickstart: `make pictures`.

Takes about a minute, and Chromium for the screenshots.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageOps
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
EXPERIMENT = HERE.parent / "experiments/quickstart.yaml"
STYLE = HERE.parent / "clipbench/reporting/formats/templates/style.css"
SCREEN = "1080,850"  # CSS pixels
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def clipbench(*arguments: str) -> str:
    """Return what a command prints on a terminal of 80 columns, with its colours."""
    command = [sys.executable, "-m", "clipbench", *arguments]
    environment = os.environ | {"COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def paragraphs(printed: str) -> tuple[list[str], list[int]]:
    """Return the paragraphs of a report, and which of them are tables."""
    found = re.split(r"\n\s*\n", printed.strip())
    return found, [number for number, paragraph in enumerate(found) if "───" in paragraph]


def terminal(command: str, shown: list[str]) -> str:
    """Draw a command and what it prints as an SVG picture of a terminal."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=80, file=nowhere)
        console.print(Text.from_ansi("\n\n".join([f"$ {command}", *shown])))
    svg = console.export_svg(title="clipbench", unique_id="terminal")
    return re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL)  # a picture must not load fonts


def with_dark_colours(svg: str) -> str:
    """Give a figure the dark colours of the report, for readers whose code host is dark."""
    style = STYLE.read_text(encoding="utf-8").partition("prefers-color-scheme: dark")[2].partition("}")[0]
    rules = "".join(f".{name}{{color:{colour}}}" for name, colour in re.findall(r"--([a-z]+): (#[0-9a-f]+)", style))
    return svg.replace("<title>", f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style><title>", 1)


def screenshot(page: Path, picture: Path, scheme: str) -> None:
    """Save the first screen of a page as a PNG file of 128 colours; `scheme` is `light` or `dark`."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(
            f"Chromium not found (tried: {', '.join(BROWSERS)}). Install it, for example: apt-get install chromium"
        )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1.5"]
    options += [f"--window-size={SCREEN}", "--virtual-time-budget=5000", f"--screenshot={picture}"]
    options += [f"--blink-settings=preferredColorScheme={('dark', 'light').index(scheme)}"]
    subprocess.run([browser, *options, page.as_uri()], check=True, stderr=subprocess.DEVNULL)
    framed = ImageOps.expand(Image.open(picture).convert("RGB"), border=3, fill="#8c959f")
    framed.quantize(128).save(picture, optimize=True)


def main() -> None:
    """Train, draw the report; search, draw what the search found."""
    with tempfile.TemporaryDirectory() as folder:
        results = ["--results", folder]
        quiet = [*results, "--no-mlflow", "--quiet"]
        clipbench("run", str(EXPERIMENT), *quiet)
        shown, tables = paragraphs(clipbench("report", "quickstart", *results))
        picture = terminal("clipbench run experiments/quickstart.yaml", shown[: tables[1] + 1])
        (HERE / "run.svg").write_text(picture, encoding="utf-8", newline="\n")
        for scheme in ("light", "dark"):
            screenshot(Path(folder) / "quickstart/report.html", HERE / f"report-{scheme}.png", scheme)
        figure = (Path(folder) / "quickstart/figures/thresholds.svg").read_text(encoding="utf-8")
        (HERE / "thresholds.svg").write_text(with_dark_colours(figure), encoding="utf-8", newline="\n")

        clipbench("sweep", str(EXPERIMENT), *quiet)
        shown, tables = paragraphs(clipbench("report", "quickstart", *results))
        picture = terminal("clipbench sweep experiments/quickstart.yaml", shown[tables[2] - 1 : tables[3] + 1])
        (HERE / "sweep.svg").write_text(picture, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
