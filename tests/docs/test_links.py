"""Links between the pages lead somewhere, and every page is reached from README."""

import os
import re
import subprocess

import pytest

from tests import pages
from tests.pages import PAGES, ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)|(?:href|src|srcset)=\"([^\"\s]+)\"")


def prose(page):
    """A page without its code."""
    return re.sub(r"^```.*?^```$|``.*?``|`[^`\n]*`", "", pages.text(page), flags=re.DOTALL | re.MULTILINE)


def links(page):
    return [first or second for first, second in LINK.findall(prose(page))]


def anchors(page):
    """The names under which a code host links to the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", pages.text(page), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def target(page, link):
    """The file that a link leads to, from the top of the repository."""
    path = link.partition("#")[0]
    return os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_exist(page):
    for link in links(page):
        if re.match(r"https?:", link):
            continue
        path, anchor = target(page, link), link.partition("#")[2]
        assert (ROOT / path).exists(), link
        if anchor:
            assert anchor in anchors(path), link


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_that_are_in_the_repository(page):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("this is not a git repository")
    files = set(listed.stdout.splitlines())
    for link in links(page):
        if not re.match(r"https?:", link):
            path = target(page, link)
            assert path in files or any(file.startswith(f"{path}/") for file in files), link


@pytest.mark.parametrize("page", PAGES)
def test_headings_of_a_page_differ(page):
    assert len(anchors(page)) == len(set(anchors(page)))


def test_every_page_is_reached_from_readme():
    reached, new = set(), {"README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        new |= {path for link in links(page) if (path := target(page, link)) in PAGES} - reached
    assert reached == set(PAGES)


def test_pictures_are_small_and_load_nothing():
    pictures = [path for ending in ("svg", "png") for path in (ROOT / "results").glob(f"*.{ending}")]
    assert len(pictures) >= 5
    assert sum(path.stat().st_size for path in pictures) < 600_000
    for path in pictures:
        if path.suffix == ".svg":
            loaded = re.findall(r"url\((?!#)|href=\"(?!#)|@import", path.read_text(encoding="utf-8"))
            assert loaded == [], path.name
    shown = {target(page, link) for page in PAGES for link in links(page)}
    assert {f"results/{path.name}" for path in pictures} <= shown


def test_pictures_have_alternative_text():
    for page in PAGES:
        images = re.findall(r"<img [^>]*>", prose(page))
        assert all(re.search(r'alt="[^"]{10,}"', image) for image in images)
        assert "![](" not in prose(page)
