"""The templates: what is given as text is escaped, what is misspelt is an error, and JSON stays in its script."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

from analysis.report.rendering import ENVIRONMENT, note, render, script_json
from analysis.report.rendering import TEMPLATES as FOLDER
from tests.support.html_pages import HtmlPage

HOSTILE = "</script><script>alert(1)</script><!-- \"'&<b>"
TABLES: Any = ENVIRONMENT.get_template("tables.html").module


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_characters="\r\x00", exclude_categories=["Cs"]), max_size=40))
def test_a_text_reads_as_itself_in_elements_and_attributes(text: str) -> None:
    page = HtmlPage(ENVIRONMENT.from_string('<p title="{{ text }}">{{ text }}</p>').render(text=text))
    assert page.tags == ["p"]
    assert (page.text, page.values) == (text, [text])


def test_no_template_says_that_a_value_needs_no_escaping() -> None:
    assert ENVIRONMENT.autoescape is True
    assert len(list(FOLDER.iterdir())) > 10
    for file in FOLDER.iterdir():
        assert not re.search(r"\|\s*safe|autoescape", file.read_text(encoding="utf-8")), file.name


def test_what_is_no_text_is_escaped_as_it_is_written() -> None:
    assert note(3) == '<p class="quiet">3</p>'  # type: ignore[arg-type]
    assert "[&#39;&lt;&#39;]" in note(["<"])  # type: ignore[arg-type]


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'text' is undefined"):
        render("note.html")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text() | st.integers() | st.dictionaries(st.text(max_size=3), st.text(), max_size=2), max_size=3))
def test_script_json_reads_back_and_cannot_end_its_element(value: object) -> None:
    text = script_json([value, HOSTILE])
    assert json.loads(text) == [value, HOSTILE]
    assert not set("<>&\u2028\u2029") & set(text)


def test_script_json_refuses_what_is_no_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json(float("nan"))


# -- plain tables and definitions --------------------------------------------------------------------------------------


def test_a_grid_has_row_headings_texts_and_numbers() -> None:
    markup = TABLES.grid(["a", "b", "c"], [["<x>", "y", "1"]], words=1)
    assert '<th scope="col">a</th><th scope="col">b</th><th scope="col" class="number">c</th>' in markup
    assert '<th scope="row">&lt;x&gt;</th><td>y</td><td class="number">1</td>' in markup
    assert markup.startswith('<div class="scroll">')
    assert TABLES.grid(["a", "b"], [["x", HOSTILE]]).count("<script") == 0


def test_in_a_notebook_words_stand_at_the_left() -> None:
    markup = TABLES.grid(["a", "b", "c"], [["x", "y", "1"]], words=1, styled=True)
    left = 'style="text-align: left"'
    assert f'<th scope="row" {left}>x</th><td {left}>y</td><td class="number">1</td>' in markup
    assert f'<th scope="col" {left}>b</th><th scope="col" class="number">c</th>' in markup


def test_definitions_nest_and_missing_values_are_dashes() -> None:
    pairs = [
        ("a_b", 1), ("none", None), ("empty", []), ("yes", True), ("list", ["x", 2]), ("map", {"k_1": {"deep": "<"}}),
        ("maps", [{"m": 1}, {"n": False}]),
    ]  # fmt: skip
    markup = TABLES.definitions(pairs)
    assert "<dt>a b</dt><dd>1</dd>" in markup
    assert "<dt>none</dt><dd>–</dd><dt>empty</dt><dd>–</dd><dt>yes</dt><dd>yes</dd>" in markup
    assert "<dd>x, 2</dd>" in markup
    assert "<dl><dt>k 1</dt><dd><dl><dt>deep</dt><dd>&lt;</dd></dl></dd></dl>" in markup
    assert "<dl><dt>m</dt><dd>1</dd></dl><dl><dt>n</dt><dd>no</dd></dl>" in markup
    assert "<script" not in TABLES.definitions([(HOSTILE, {HOSTILE: [HOSTILE]})])
