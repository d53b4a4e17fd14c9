"""Lines of results: whole, torn, glued together, and no record at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.records.lines import LineError, read_lines
from study.records.record import TrialRecord
from tests.support.study_directory import make_record

SHORT = {"curve": [], "samples": [], "dataset": {}}
WHOLE, OTHER = (make_record(index, reason="ü\u2028", **SHORT).to_json().encode() for index in (0, 1))


@given(st.integers(1, len(OTHER) - 1))
def test_a_torn_line_is_known_from_a_whole_one(cut: int) -> None:
    torn = OTHER[:cut]
    first, second = read_lines(WHOLE + b"\n" + torn)
    assert (first.record, first.whole, first.torn) == (TrialRecord.from_json(WHOLE.decode()), WHOLE, b"")
    assert (second.record, second.whole, second.torn) == (None, b"", torn)
    assert second.fault
    assert (first.ended, second.ended) == (True, False)
    (glued,) = read_lines(torn + WHOLE)
    assert (glued.torn, glued.record) == (torn, first.record)


def test_blank_lines_are_left_out_and_counted() -> None:
    assert [line.number for line in read_lines(b"\n \r\n" + WHOLE + b"\r\n\n" + OTHER)] == [3, 5]
    assert list(read_lines(b"")) == []


@pytest.mark.parametrize("value", ["null", "[]", "3", '"text"'])
def test_json_that_is_no_object_is_torn(value: str) -> None:
    (line,) = read_lines(value.encode())
    assert (line.record, line.torn) == (None, value.encode())
    assert line.fault.startswith("it holds ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"schema_version": 1}', "it has no 'config'"),
        (b'{"schema_version": 99}', "at most 1 can be read"),
        (b"[" * 100_000, "recursion"),
        (WHOLE.replace(b'"perplexity": ', b'"perplexity": "much", "x": ', 1), "perplexity must be a number or null"),
    ],
)
def test_a_whole_line_that_is_no_record_is_named_by_its_number(line: bytes, reason: str) -> None:
    with pytest.raises(LineError, match="line 2: ") as caught:
        list(read_lines(OTHER + b"\n" + line))
    assert caught.value.number == 2
    assert reason in caught.value.reason
