"""Only regular files are read, without waiting, and no more of them than their reader says."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.guarded_files import (
    DEEPEST,
    FileRefusedError,
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_lines,
    read_text,
)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "endless device", "socket", "link to a device"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Under half a second each, where a plain `open` would wait or never end."""
    path = tmp_path / "place"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # a socket's path may have 107 characters only
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("place")
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    else:
        path = Path("/dev/null" if kind == "device" else "/dev/urandom")
    start = time.monotonic()
    with pytest.raises((FileRefusedError, OSError)) as caught:  # a socket cannot even be opened
        open_regular(path)
    assert time.monotonic() - start < 0.5
    assert isinstance(caught.value, FileRefusedError) or kind == "socket"


def test_a_link_to_a_regular_file_is_followed_and_a_missing_one_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    assert read_text(tmp_path / "link") == "text"
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none")


def test_a_file_may_hold_as_many_bytes_as_said_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 10)
    assert read_bytes(tmp_path / "file", 10) == b"x" * 10
    with pytest.raises(FileRefusedError, match="at most"):
        read_bytes(tmp_path / "file", 9)


def test_lines_come_one_at_a_time_and_a_long_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\nbb\n\nccc")
    assert list(read_lines(tmp_path / "file", 3)) == [b"a\n", b"bb\n", b"\n", b"ccc"]
    with pytest.raises(FileRefusedError, match="line 2 of"):
        list(read_lines(tmp_path / "file", 2))


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"\xff", "UTF-8"), (b"{", "must hold JSON"), (b"[" * 99_999, "deep"), (b"9" * 5000, "must hold JSON")],
)
def test_what_is_no_json_text_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FileRefusedError, match=says):
        read_json(tmp_path / "file")


@given(st.integers(1, 3 * DEEPEST), st.booleans())
def test_values_up_to_the_depth_are_read_and_deeper_ones_refused(depth: int, objects: bool) -> None:
    text = '{"a":' * depth + "1" + "}" * depth if objects else "[" * depth + "]" * depth
    if depth <= DEEPEST:
        assert parse_json(text) == json.loads(text)
    else:
        with pytest.raises(ValueError, match="deep"):
            parse_json(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_other_value_is_read_as_json_does(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value
