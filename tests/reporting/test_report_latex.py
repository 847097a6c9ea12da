"""The LaTeX tables: word by word, and typeset by a real TeX where there is one."""

import shutil
import subprocess

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipbench.reporting import compare
from clipbench.reporting.formats import latex
from tests.golden_files import check_golden
from tests.reporting.test_report import arm, quickstart

PDFLATEX = shutil.which("pdflatex")
DOCUMENT = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n%s\n\\end{document}\n"


def typeset(folder, text):
    """What TeX says of a document; it must make a page."""
    (folder / "paper.tex").write_text(DOCUMENT % text, encoding="utf-8")
    command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="latin-1", timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "paper.pdf").stat().st_size > 1000


def test_latex_says_what_it_said():
    check_golden("report/quickstart.tex", latex.render(compare(quickstart(), name="quickstart")))


@pytest.mark.skipif(PDFLATEX is None, reason="there is no pdflatex on this machine: install TeX Live to typeset")
def test_tables_are_typeset_whatever_users_call_their_rules(tmp_path):
    names = ("./a_b%c&d#e$f.py:g{h}", r"back\slash^~<|>", "Größe 損失 \x07\x00", "-1 ±∞µ…")
    rows = arm("none") + [row for name in names for row in arm(name, 1.0)]
    typeset(tmp_path, latex.render(compare(pd.DataFrame(rows), name="100 % & more_")))


@pytest.mark.skipif(PDFLATEX is None, reason="there is no pdflatex on this machine: install TeX Live to typeset")
def test_quickstart_is_typeset(tmp_path):
    typeset(tmp_path, latex.render(compare(quickstart(), name="quickstart")))


def test_minus_is_a_minus_and_a_hyphen_stays_one():
    assert latex.text("-0.3 ± 0.1") == r"$-$0.3 $\pm$ 0.1"
    assert latex.text("[-0.2, +0.8]") == "[$-$0.2, +0.8]"
    assert latex.text("w-t-l 8-0-0") == "w-t-l 8-0-0"


@given(st.text(max_size=30))
def test_nothing_a_user_writes_is_a_command(text):
    escaped = latex.text(text)
    for known in sorted(set(latex.SIGNS.values()), key=len, reverse=True):
        escaped = escaped.replace(known, "")
    assert not set(escaped.replace("$-$", "")) & set("\\{}$&#%^_~")
