"""Lines of results: whole, torn, glued together, and no record at all."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.records import lines
from study.records.lines import Line, read_lines
from study.records.record import TrialRecord
from tests.support.study_directory import make_record

SHORT = {"curve": [], "samples": [], "dataset": {}}
WHOLE, OTHER = (make_record(index, reason="ü\u2028", **SHORT).to_json().encode() for index in (0, 1))


def read(data: bytes) -> list[Line]:
    return list(read_lines(io.BytesIO(data)))


def changed(**values: object) -> bytes:
    return json.dumps({**json.loads(WHOLE), **values}).encode()


@given(st.integers(1, len(OTHER) - 1))
def test_a_torn_line_is_known_from_a_whole_one(cut: int) -> None:
    torn = OTHER[:cut]
    first, second = read(WHOLE + b"\n" + torn)
    assert (first.record, first.start, first.record_start, first.end) == (
        TrialRecord.from_json(WHOLE),
        0,
        0,
        len(WHOLE),
    )
    assert (second.record, second.torn, second.record_start) == (None, True, second.end)
    assert second.fault
    assert (first.ended, second.ended) == (True, False)
    (glued,) = read(torn + WHOLE)
    assert (glued.record_start, glued.record, glued.torn) == (cut, first.record, True)


def test_blank_lines_are_left_out_and_counted() -> None:
    assert [line.number for line in read(b"\n \r\n" + WHOLE + b"\r\n\n" + OTHER)] == [3, 5]
    assert read(b"") == []


def test_places_are_those_in_the_file() -> None:
    data = b"\n" + WHOLE + b"\r\nnonsense\n" + OTHER
    assert [data[line.start : line.end].strip() for line in read(data)] == [WHOLE, b"nonsense", OTHER]


@pytest.mark.parametrize("value", ["null", "[]", "3", '"text"'])
def test_json_that_is_no_object_is_no_record(value: str) -> None:
    (line,) = read(value.encode())
    assert (line.record, line.torn) == (None, False)
    assert line.fault.startswith("it must be an object; it is ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"schema_version": 1}', "study is missing"),
        (b'{"schema_version": 99}', "at most 1 can be read. Update LoRA Frontier"),
        (b"[" * 100_000, "more than 100 deep"),
        (b"[" * 200_001, "at most 200,000 lists and objects"),
        (b'{"a": ' * 300 + b"1" + b"}" * 300, "more than 100 deep"),
        (b"\xff\xfe", "JSON in UTF-8"),
        (b"9" * 5000, "it must be JSON"),
        (
            changed(trial_id="../t000"),
            'trial_id must be a plain file name of letters, digits, `.`, `_` and `-`; it is "../',
        ),
        (changed(adapter="/etc"), "adapter must be null or adapters/t000"),
        (changed(adapter="adapters/t001"), "adapter must be null or adapters/t000"),
    ],
)
def test_a_whole_line_that_is_no_record_says_why(line: bytes, reason: str) -> None:
    good, bad, other = read(OTHER + b"\n" + line + b"\n" + WHOLE)
    assert (bad.number, bad.record, bad.record_start) == (2, None, bad.end)
    assert reason in bad.fault
    assert good.record is not None
    assert other.record is not None
    assert bad.later is (b"99" in line and line.startswith(b"{"))


def test_a_line_that_is_too_long_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_LINE_BYTES", len(WHOLE))
    first, second, third = read(b"x" * 3_000_000 + b"\n" + WHOLE[:-1] + b"\n" + b"y" * 2_000_000)
    assert "it must hold at most" in first.fault
    assert (second.start, first.end, first.ended) == (3_000_001, 3_000_000, True)
    assert (third.record, third.ended, third.end - third.start) == (None, False, 2_000_000)


def test_half_a_surrogate_pair_is_read_as_it_would_have_been_written() -> None:
    (line,) = read(changed(reason="a \udc80 b", samples=[{"prompt": "\ud83d", "tuned": "\U0001f600"}]))
    assert line.record is not None
    assert (line.record.reason, line.record.samples[0]) == ("a ? b", {"prompt": "?", "tuned": "\U0001f600"})
