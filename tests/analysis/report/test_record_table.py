"""Tables of records: headings to sort by, keys, and texts that stay texts."""

from __future__ import annotations

from markupsafe import Markup

from analysis.report.record_table import Cell, Column, measured, record_table
from tests.support.html_pages import HtmlPage
from tests.support.study_directory import MakeRecord

HOSTILE = "</script><script>alert(1)</script><!-- \"'&<b>"


def _columns() -> list[Column]:
    return [
        Column("Trial <1>", lambda record: Cell(record.trial_id, record.trial_id), numeric=False, hint='the "name"'),
        measured("perplexity", "Perplexity"),
        Column("Marked", lambda record: Cell("text", None, Markup("<i>markup</i>"))),
    ]


def test_a_record_table_has_headings_to_sort_by_and_keys(record: MakeRecord) -> None:
    records = [record(0, trial_id=HOSTILE), record(1, status="failed")]
    markup = record_table(records, _columns(), frozenset({"t001"}))
    reader = HtmlPage(markup)
    assert reader.tags.count("button") == 3
    assert reader.tags.count("tr") == 3
    assert reader.tags.count("i") == 2  # the markup, given as such
    assert "script" not in reader.tags
    assert HOSTILE in reader.text
    assert 'the "name"' in reader.values
    assert repr(record(0).measurements["perplexity"]) in reader.values  # sorts by the whole number, not by its text
    assert markup.count('class="member"') == 1
    assert '<td class="number">–</td>' in markup  # no key: it sorts last
    assert markup.startswith('<div class="scroll">')


def test_a_record_table_without_records_has_its_headings() -> None:
    assert HtmlPage(record_table([], _columns())).tags.count("th") == 3
