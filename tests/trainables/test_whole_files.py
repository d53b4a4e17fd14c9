"""Whole files or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainables.whole_files import write_whole


def test_a_file_is_replaced_and_readable_by_others(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    assert write_whole(file, "new é") == file
    assert file.read_text(encoding="utf-8") == "new é"
    assert file.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_cannot_be_written_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")

    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]
