"""Values in messages: one line, bounded, without what a terminal would obey, as other faults show them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from study import errors
from trainables.shown_values import SHOWN_CHARACTERS, shortened, shown

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_a_value_is_shown_on_one_bounded_line_as_faults_of_a_study_show_it(value: Any) -> None:
    """`study.errors` loads before a foreign package is found out, so it may not import this: both say the same."""
    text = shown(value)
    assert text.isprintable()
    assert len(text) <= 10 * (SHOWN_CHARACTERS + 3)  # each character that is no print is written as up to ten
    assert text == errors.shown(value)


@given(st.text(), st.integers(4, 50))
def test_a_text_within_the_length_is_whole_and_a_longer_one_keeps_both_ends(text: str, length: int) -> None:
    cut = shortened(text, length)
    if text.isprintable():
        assert cut == text if len(text) <= length else cut.startswith(text[: length - length // 4])
        assert len(cut) <= max(length, 3) + 4


def test_what_json_cannot_write_is_shown_as_python_does() -> None:
    assert shown({1, 2}) == "{1, 2}"
