"""How to reproduce a report: the commands as typed, and the versions at training and now."""

import json

import pytest

from clipbench.reporting import provenance
from clipbench.reporting.write import publish
from clipbench.store import run_history
from clipbench.store.folder import Store
from tests.reporting.test_html import outline
from tests.reporting.test_report_files import published

__all__ = ["published"]


def words(found):
    return [(fact.term, fact.words) for fact in found.facts]


def run(**changes):
    return run_history.TrainingRun(
        **{**vars(run_history.begun("clipbench run x.yaml --seeds 2", 16, "cpu", "abc", "0123456789abcdef")), **changes}
    )


def test_runs_are_kept_in_their_order_and_the_oldest_are_forgotten(tmp_path):
    store = Store(tmp_path)
    assert run_history.read(store) == []
    for number in range(run_history.MOST + 5):
        run_history.add(store, run(command=f"clipbench run {number}"))
    found = run_history.read(store)
    assert [found[0].command, found[-1].command] == ["clipbench run 5", "clipbench run 104"]
    assert found[0] == run(command="clipbench run 5", when=found[0].when)
    assert found[0].versions["torch"] and found[0].python.startswith("3.")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "[1, null]", '[{"trials": "2"}]', '[{"trials": 2}]', '[{"command": "a", "trials": null}]'],
)
def test_damaged_list_of_runs_knows_nothing_and_stops_no_report(tmp_path, text):
    (tmp_path / run_history.FILE).write_text(text)
    assert run_history.read(Store(tmp_path)) == []


def test_entries_of_a_later_version_are_read_as_far_as_they_are_known(tmp_path):
    entry = {"command": "clipbench run a", "trials": 2, "planet": "Mars", "versions": [1], "device": 3}
    (tmp_path / run_history.FILE).write_text(json.dumps([entry]))
    (found,) = run_history.read(Store(tmp_path))
    assert (found.command, found.device, found.versions) == ("clipbench run a", "3", {})


def test_command_is_told_as_it_was_typed(published, tmp_path):
    subject, store, _ = published
    found = words(provenance.of(subject, store.records(), [run(when="2026-11-21T03:00:00Z")]))
    assert found[0] == ("command (2026-11-21)", "clipbench run x.yaml --seeds 2 (16 trials, commit 0123456789ab)")


def test_versions_are_one_line_where_nothing_changed_and_two_where_something_did(published):
    subject, store, _ = published
    same = words(provenance.of(subject, store.records(), [run(), run()]))
    assert [term for term, _ in same if term in ("versions", "trained with", "reported with")] == ["versions"]
    other = words(provenance.of(subject, store.records(), [run(versions={"torch": "1.0"}), run()]))
    assert [term for term, _ in other][-3:] == ["trained with", "trained with", "reported with"]
    assert dict(other)["reported with"] == dict(same)["versions"]
    assert any(text.startswith("torch 1.0, Python 3") for _, text in other)


def test_store_that_knows_no_run_says_so(published):
    subject, store, _ = published
    found = dict(words(provenance.of(subject, store.records())))
    assert found["reported with"].endswith("; the versions at training are not known")


def test_page_shows_them_each_with_its_meaning(published):
    subject, store, _ = published
    run_history.add(store, run(command="clipbench run '<b>.yaml'"))
    publish(subject, store)
    page = (store.folder / "report.html").read_text("utf-8")
    (store.folder / run_history.FILE).unlink()
    assert "clipbench run &#39;&lt;b&gt;.yaml&#39; (16 trials, commit 0123456789ab)" in page
    tips = [
        attributes["data-tip"] for tag, attributes in outline(page).tags if tag == "span" and "data-tip" in attributes
    ]
    assert provenance.TYPED in tips and provenance.HASH in tips
