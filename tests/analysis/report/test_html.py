"""The pieces of HTML: everything given as text is escaped, everything sortable has its key."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.report.html import Cell, Column, definitions, escape, grid, measured, record_table, script_json
from tests.support.study_directory import MakeRecord

HOSTILE = "</script><script>alert(1)</script><!-- \"'&<b>"


class _Reader(HTMLParser):
    """The tags, attributes and text of a piece of HTML."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[str | None] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_characters="\r\x00"), max_size=40))
def test_escaped_text_reads_as_itself_in_elements_and_attributes(text: str) -> None:
    reader = _Reader(f'<p title="{escape(text)}">{escape(text)}</p>')
    assert reader.tags == ["p"]
    assert (reader.text, reader.values) == (text, [text])


def test_what_is_no_text_is_escaped_as_it_is_written() -> None:
    assert escape(3) == "3"
    assert escape(["<"]) == "[&#x27;&lt;&#x27;]"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text() | st.integers() | st.dictionaries(st.text(max_size=3), st.text(), max_size=2), max_size=3))
def test_script_json_reads_back_and_cannot_end_its_element(value: object) -> None:
    text = script_json([value, HOSTILE])
    assert json.loads(text) == [value, HOSTILE]
    assert not set("<>&\u2028\u2029") & set(text)


def test_script_json_refuses_what_is_no_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json(float("nan"))


# -- tables of records -------------------------------------------------------------------------------------------------


def _columns() -> list[Column]:
    return [
        Column("Trial <1>", lambda record: Cell(record.trial_id, record.trial_id), numeric=False, hint='the "name"'),
        measured("perplexity", "Perplexity"),
        Column("Marked", lambda record: Cell("text", None, "<i>markup</i>")),
    ]


def test_a_record_table_has_headings_to_sort_by_and_keys(record: MakeRecord) -> None:
    records = [record(0, trial_id=HOSTILE), record(1, status="failed")]
    markup = record_table(records, _columns(), frozenset({"t001"}))
    reader = _Reader(markup)
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
    assert _Reader(record_table([], _columns())).tags.count("th") == 3


# -- plain tables and definitions --------------------------------------------------------------------------------------


def test_a_grid_has_row_headings_texts_and_numbers() -> None:
    markup = grid(["a", "b", "c"], [["<x>", "y", "1"]], texts=1)
    assert '<th scope="col">a</th><th scope="col">b</th><th scope="col" class="number">c</th>' in markup
    assert '<th scope="row">&lt;x&gt;</th><td>y</td><td class="number">1</td>' in markup
    assert markup.startswith('<div class="scroll">')
    assert grid(["a", "b"], [["x", HOSTILE]]).count("<script") == 0


def test_definitions_nest_and_missing_values_are_dashes() -> None:
    pairs = [
        ("a_b", 1), ("none", None), ("empty", []), ("yes", True), ("list", ["x", 2]), ("map", {"k_1": {"deep": "<"}}),
        ("maps", [{"m": 1}, {"n": False}]),
    ]  # fmt: skip
    markup = definitions(pairs)
    assert "<dt>a b</dt><dd>1</dd>" in markup
    assert "<dt>none</dt><dd>–</dd><dt>empty</dt><dd>–</dd><dt>yes</dt><dd>yes</dd>" in markup
    assert "<dd>x, 2</dd>" in markup
    assert "<dl><dt>k 1</dt><dd><dl><dt>deep</dt><dd>&lt;</dd></dl></dd></dl>" in markup
    assert "<dl><dt>m</dt><dd>1</dd></dl><dl><dt>n</dt><dd>no</dd></dl>" in markup
    assert "<script" not in definitions([(HOSTILE, {HOSTILE: [HOSTILE]})])
