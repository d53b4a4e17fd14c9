"""The results store: no trial is lost or recorded twice, whenever the writer is killed, whoever reads."""

from __future__ import annotations

import json
import math
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study.errors import StoreError
from study.records.layout import RESULTS_FILE, TORN_FILE
from study.records.reading import SetAside
from study.records.store import ResultsStore
from tests.support.stored_records import ids, line, record


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that write thousands of times, and in which the machine stays up."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    first, second = record("t000", measurements={"perplexity": 7.5}), record("t001", status="failed", reason="no")
    with ResultsStore(tmp_path) as store:
        assert store.append(first)
        assert store.append(second)
        assert store.records() == (first, second)
    assert ResultsStore(tmp_path).records() == (first, second)
    assert (tmp_path / RESULTS_FILE).read_bytes() == line("t000", measurements={"perplexity": 7.5}) + line(
        "t001", status="failed", reason="no"
    )


def test_each_trial_ends_exactly_once(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as store:
        assert store.append(record("t000", reason="first"))
        assert not store.append(record("t000", reason="second"))
    with ResultsStore(tmp_path) as store:  # also after a restart
        assert not store.append(record("t000", reason="third"))
        assert [one.reason for one in store.records()] == ["first"]
    assert len((tmp_path / RESULTS_FILE).read_bytes().splitlines()) == 1


def test_texts_with_other_line_separators_stay_one_record(tmp_path: Path) -> None:
    odd = record("t000", samples=({"prompt": "a\u2028b\u2029c\x85d\x0be\x0cf\rg\nh", "base": "", "tuned": ""},))
    with ResultsStore(tmp_path) as store:
        store.append(odd)
        store.append(record("t001"))
    assert ResultsStore(tmp_path).records() == (odd, record("t001"))


def test_half_a_surrogate_pair_becomes_a_question_mark(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as store:
        store.append(record("t000", error="cannot read \udcff.txt"))
    assert ResultsStore(tmp_path).records()[0].error == "cannot read ?.txt"


def test_not_a_number_is_refused_and_leaves_the_file_alone(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as store:
        store.append(record("t000"))
        with pytest.raises(ValueError, match="JSON compliant"):
            store.append(record("t001", measurements={"perplexity": math.nan}))
        assert store.append(record("t001"))
    assert ids(tmp_path) == ["t000", "t001"]


def test_a_tear_at_any_byte_loses_no_whole_record(tmp_path: Path, quick_disk: None) -> None:
    """Two records, the second torn after `cut` bytes: what is whole stays, and the next append starts a line."""
    whole, torn = line("t000", reason="ü\u2028"), line("t001", reason="ü\u2028")
    for cut in range(len(torn) + 1):
        (tmp_path / RESULTS_FILE).write_bytes(whole + torn[:cut])
        survives = cut >= len(torn) - 1  # only the line feed is missing
        expected = ["t000", "t001"] if survives else ["t000"]
        assert ids(tmp_path) == expected, cut
        if 3 < cut < len(torn) - 3 and cut % 41:
            continue  # mending takes longer than reading: a share of the places will do
        with ResultsStore(tmp_path) as store:
            assert store.append(record("t001")) is not survives, cut
            assert store.append(record("t002")), cut
        lines = (tmp_path / RESULTS_FILE).read_bytes().split(b"\n")
        assert lines.pop() == b""
        assert [json.loads(one)["trial_id"] for one in lines] == ["t000", "t001", "t002"], cut


PIECES = st.sampled_from(["whole", "torn", "glued", "empty", "zeros"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(PIECES, st.integers(1, 400)), max_size=6), st.booleans())
def test_torn_lines_before_whole_ones_are_kept_aside(
    tmp_path: Path, quick_disk: None, pieces: list[tuple[str, int]], ended: bool
) -> None:
    """`glued` is a record written behind the beginning of another, by a writer that did not look."""
    data, expected = b"", []
    for number, (piece, cut) in enumerate(pieces):
        whole, torn = line(f"t{number}"), line(f"x{number}")[:cut]
        data += {"whole": whole, "torn": torn + b"\n", "glued": torn + whole, "empty": b"\n", "zeros": b"\0\0\n"}[piece]
        expected += [f"t{number}"] if piece in ("whole", "glued") else []
    (tmp_path / RESULTS_FILE).write_bytes(data if ended else data[:-1])
    assert ids(tmp_path) == expected
    with ResultsStore(tmp_path) as store:
        store.append(record("last"))
    lines = (tmp_path / RESULTS_FILE).read_bytes().splitlines()
    assert [json.loads(one)["trial_id"] for one in lines if one] == [*expected, "last"]


def test_what_was_torn_is_kept_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / RESULTS_FILE).write_bytes(line("t000")[:50] + b"\n" + line("t001") + line("t002")[:70])
    ResultsStore(tmp_path).own()
    assert (tmp_path / RESULTS_FILE).read_bytes() == line("t001")
    first, torn, second, cut = (tmp_path / TORN_FILE).read_bytes().splitlines()
    assert (torn, cut) == (line("t000")[:50], line("t002")[:70])
    assert first.startswith(b"# line 1 of results.jsonl: it must be JSON in UTF-8: ")
    assert second.startswith(b"# line 3 of results.jsonl: it must be JSON in UTF-8: ")


def test_reading_needs_no_ownership_and_changes_nothing(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as owner:
        owner.append(record("t000"))
        with (tmp_path / RESULTS_FILE).open("ab") as file:
            file.write(line("t001")[:40])  # as it looks while it is being written
        before = (tmp_path / RESULTS_FILE).read_bytes()
        assert ids(tmp_path) == ["t000"]
        assert (tmp_path / RESULTS_FILE).read_bytes() == before
    assert ResultsStore(tmp_path / "nowhere").records() == ()


def test_a_reader_beside_the_writer_sees_whole_records_in_order(tmp_path: Path, quick_disk: None) -> None:
    names = [f"t{number:03}" for number in range(60)]
    seen: list[list[str]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(ids(tmp_path))

    reader = threading.Thread(target=read)
    reader.start()
    with ResultsStore(tmp_path) as store:
        for name in names:
            store.append(record(name, samples=({"prompt": "long " * 2000},)))
    done.set()
    reader.join()
    assert seen
    assert all(found == names[: len(found)] for found in seen)
    assert ids(tmp_path) == names


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (json.dumps({"schema_version": 1, "study": "s"}), "trial_id is missing"),
        (json.dumps({**json.loads(line("t1")), "status": "odd"}), "status must be one of complete, stopped"),
        (json.dumps({**json.loads(line("t1")), "trial_id": "../t1"}), "trial_id must be a plain file name"),
    ],
)
def test_a_line_that_is_no_record_is_left_out_and_moved_by_the_driver(tmp_path: Path, wrong: str, message: str) -> None:
    data = line("t000") + wrong.encode() + b"\n" + line("t002")
    (tmp_path / RESULTS_FILE).write_bytes(data)
    reading = ResultsStore(tmp_path).reading()
    assert [one.trial_id for one in reading.records] == ["t000", "t002"]
    assert (tmp_path / RESULTS_FILE).read_bytes() == data  # readers change nothing
    with ResultsStore(tmp_path) as store:
        assert store.moved == reading.set_aside
        assert store.append(record("t1"))
    (aside,) = reading.set_aside
    assert aside.number == 2
    assert message in aside.reason
    assert ids(tmp_path) == ["t000", "t002", "t1"]
    assert (tmp_path / TORN_FILE).read_text() == f"# line 2 of results.jsonl: {aside.reason}\n{wrong}\n"


def test_of_two_records_the_earlier_is_moved(tmp_path: Path) -> None:
    (tmp_path / RESULTS_FILE).write_bytes(line("t000", reason="a") + line("t001") + line("t000", reason="b"))
    with ResultsStore(tmp_path) as store:
        assert store.moved == (SetAside(1, "trial t000 has a later record in line 3"),)
    assert (tmp_path / RESULTS_FILE).read_bytes() == line("t001") + line("t000", reason="b")
    assert (tmp_path / TORN_FILE).read_bytes().endswith(b"\n" + line("t000", reason="a"))


def test_what_a_later_version_wrote_is_left_out_by_readers_and_refused_by_the_driver(tmp_path: Path) -> None:
    data = line("t000") + json.dumps({**json.loads(line("t1")), "schema_version": 99}).encode() + b"\n"
    (tmp_path / RESULTS_FILE).write_bytes(data)
    assert ids(tmp_path) == ["t000"]
    rule = f"Line 2 of .*{RESULTS_FILE} must be .* this version can read; schema_version is 99.*Update"
    with pytest.raises(StoreError, match=rule):
        ResultsStore(tmp_path).own()
    assert (tmp_path / RESULTS_FILE).read_bytes() == data


def test_records_of_trials_are_set_aside_and_the_trials_may_end_again(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as store:
        for name in ("t000", "t001", "t002"):
            store.append(record(name))
        store.set_aside({"t001": "it is none of this study"})
        assert store.moved == (SetAside(2, "it is none of this study"),)
        assert [one.trial_id for one in store.records()] == ["t000", "t002"]
        assert store.append(record("t001", reason="again"))
    assert ids(tmp_path) == ["t000", "t002", "t001"]


@pytest.mark.parametrize("name", [RESULTS_FILE, ".lock"])
def test_a_driver_writes_through_no_link(tmp_path: Path, name: str) -> None:
    """A directory from somebody else may lead to the user's own files."""
    own, directory = tmp_path / "own", tmp_path / "directory"
    own.write_bytes(b"private\n")
    directory.mkdir()
    (directory / name).symlink_to(own)
    with pytest.raises(StoreError, match="it is a link"):
        ResultsStore(directory).own()
    assert own.read_bytes() == b"private\n"


def test_links_under_the_names_of_other_files_are_replaced_or_refused(tmp_path: Path) -> None:
    own, directory = tmp_path / "own", tmp_path / "directory"
    own.write_bytes(b"private\n")
    directory.mkdir()
    for name in (".owner", TORN_FILE):
        (directory / name).symlink_to(own)
    with ResultsStore(directory) as store:
        store.append(record("t000"))
    with (directory / RESULTS_FILE).open("ab") as file:
        file.write(b"nonsense\n")
    with pytest.raises(StoreError, match="must be writable"):
        ResultsStore(directory).own()
    assert own.read_bytes() == b"private\n"
    assert ids(directory) == ["t000"]
