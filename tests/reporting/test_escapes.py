"""Words of a user are words in every file and on the terminal: never markup, a formula, a macro or a control character."""

import csv
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import yaml
from markdown_it import MarkdownIt

from clipbench.errors import CONTROL
from tests.cli_helpers import invoke

NASTY = (
    "=1+1|`<script>alert(1)</script>`[x](javascript:alert(2)) \\input{/etc/passwd} %$x^2$ ~~a~~ #1 &lt; \"'; "
    "[red]r[/red][link=https://example.org]y[/link] :smile: *b* _c_ ]]> --"
)
CONTROLS = "\x1b[31m\x1b]0;title\x07\x00\x9b\u202e\x08"
METRIC = "=m|`<b>`[x](y) %$x^2$ \\\\input{z} [red]r"
MINE = f"""
import torch
from clipbench import strategy

NASTY, CONTROLS, METRIC = {NASTY!r}, {CONTROLS!r}, {METRIC!r}

def data(note=""):
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    return x, (x.sum(1) > 0).long()

def net(inputs, outputs, note=""):
    return torch.nn.Linear(inputs, outputs)

def main(clip, seed, note=""):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clip.attach(model, optimizer)
    if seed == 1:
        raise ValueError(CONTROLS + NASTY + "x" * 100_000)
    for batch in clip.steps(torch.ones(2, 5, 2)):
        loss = model(batch).square().mean()
        loss.backward()
        clip.step(loss)
    clip.report({{"val/loss": loss.item()}})
    return {{"test/loss": loss.item(), "test/" + METRIC: 1.0}}

@strategy(per="model")
def rule(n, threshold, note: str = ""):
    return (threshold / n).clamp(max=1), n > threshold
"""
CLIP = ["none", {"name": "./mine.py:rule", "threshold": 1.0, "note": NASTY}]
CLAIMS = [
    {"says": NASTY, "expect": f"none > ./mine.py:rule(note={NASTY})", "family": NASTY},
    {"says": "=2+2", "expect": "none > ./mine.py:rule"},
]
EXPERIMENTS = {
    "trained": {
        "data": {"name": "./mine.py:data", "note": NASTY},
        "model": {"name": "./mine.py:net", "note": [NASTY, f"{NASTY}2"]},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "train": {"epochs": 1},
        "claims": CLAIMS,
    },
    "script": {
        "train": {"script": "./mine.py:main", "note": NASTY, "metrics": {METRIC: "maximize"}},
        "report": {"metric": f"test/{METRIC}"},
    },
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with two experiments and their results, and what the commands have printed."""
    folder = tmp_path_factory.mktemp("nasty")
    (folder / "mine.py").write_text(MINE)
    printed = {}
    for name, sections in EXPERIMENTS.items():
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name, "clip": CLIP, "seeds": 3, **sections}, allow_unicode=True))
        printed[name] = invoke("run", path, "--results", folder / "results", "--no-mlflow")
        assert printed[name].exit_code in (0, 3), printed[name].stderr
    paths = [folder / f"{name}.yaml" for name in EXPERIMENTS]
    for layout in ("terminal", "markdown", "json"):
        printed[layout] = invoke("report", *paths, "--results", folder / "results", "--format", layout)
        assert printed[layout].exit_code == 0, printed[layout].output
    return folder, printed


def files(folder, pattern):
    """The texts of all files of that name, of both experiments."""
    found = sorted((folder / "results").rglob(pattern))
    assert len(found) >= 2
    return [path.read_text(encoding="utf-8") for path in found]


def words(text):
    return " ".join(text.split())


def test_no_control_character_is_written_or_printed(written):
    folder, printed = written
    kinds = ("md", "html", "json", "csv", "tex", "yaml", "svg")
    texts = [text for kind in kinds for text in files(folder, f"*.{kind}")]
    texts += [text for result in printed.values() for text in (result.stdout, result.stderr)]
    assert not [text for text in texts if CONTROL.search(text)]
    assert (
        "2 trials failed: mine.py:19: ValueError: \\x1b[31m\\x1b]0;title\\x07\\x00\\x9b\\u202e"
        in printed["script"].stderr
    )
    assert max(len(line) for result in printed.values() for line in result.stderr.splitlines()) < 3000


def test_a_terminal_shows_markup_of_rich_as_it_is(written):
    _, printed = written
    assert all(words(NASTY[:30]) in words(printed[name].stdout) for name in EXPERIMENTS)
    assert all("[red]r" in printed[name].stdout and ":smile:" in printed[name].stdout for name in EXPERIMENTS)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.scripts, self.text, self.inside = [], [], [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = tag
        self.links += [value for name, value in attrs if name in ("href", "src", "action") or name.startswith("on")]

    def handle_data(self, data):
        self.text += data
        self.scripts += [data] if self.inside == "script" else []


def test_a_page_holds_words_as_text(written):
    for text in files(written[0], "*.html"):
        page = Page(text)
        assert words(NASTY) in words(page.text)
        assert not {"b", "input", "iframe", "img"} & set(page.tags)
        assert not any("alert(" in script for script in page.scripts)
        assert all(re.match(r"#|[\w-]+/report\.html$", link) for link in page.links), page.links


def test_a_figure_holds_words_as_text(written):
    for text in files(written[0], "*.svg"):
        drawn = ElementTree.fromstring(text.encode())
        assert not {element.tag.rpartition("}")[2] for element in drawn.iter()} & {"script", "b", "a", "image"}


def test_markdown_holds_words_as_text(written):
    for text in files(written[0], "report.md"):
        tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
        inline = [child for token in tokens for child in token.children or ()]
        kinds = {token.type for token in (*tokens, *inline)}
        assert not kinds & {"html_block", "html_inline", "link_open", "image", "s_open", "em_open"}, kinds
        assert not re.search(r"(?<!\\)\$", re.sub(r"(?s)`+.*?`+", "", text))
        shown = ["".join(child.content for child in token.children or ()) for token in tokens]
        assert any(words(NASTY) in each for each in shown)


def test_latex_holds_words_as_text(written):
    for text in files(written[0], "table.tex"):
        body = text.partition("\n")[2]
        assert r"=1+1$|$`$<$script$>$alert(1)$<$/script$>$`[x](javascript:alert(2))" in body
        assert r"\textbackslash{}input\{/etc/passwd\} \%\$x\textasciicircum{}2\$" in body
        assert r"\input" not in body
        assert not re.search(r"(?<!\\)[%#~^_]", body.replace(r"\label", "%").split("%")[0])


def test_a_spreadsheet_takes_no_words_for_a_formula(written):
    for text in files(written[0], "table.csv"):
        rows = list(csv.reader(text.splitlines()))
        assert len({len(row) for row in rows}) == 1
        for cell in (cell for row in rows for cell in row):
            assert re.fullmatch(r"[-+]?(inf|[\d.]+(e[-+]?\d+)?)", cell) or not cell.startswith(("=", "+", "-", "@"))
    assert f"'{NASTY}" in [
        cell for text in files(written[0], "table.csv") for row in csv.reader([*text.splitlines()]) for cell in row
    ]


def test_the_resolved_experiment_holds_the_same_words(written):
    first, _ = files(written[0], "experiment.yaml")[::-1]
    assert yaml.safe_load(first)["model"]["note"] == [NASTY, f"{NASTY}2"]
