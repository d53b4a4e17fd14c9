"""Files are noticed that are not what was written, whatever their times say; those that are get hashed once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from trainables import verified_files
from trainables.verified_files import MANIFEST, VERIFIED, hash_file, is_intact, seal


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    folder = tmp_path / "entry"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"alpha" * 100)
    (folder / "sub" / "b.bin").write_bytes(b"beta")
    seal(folder)
    return folder


@pytest.fixture
def hashed(entry: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were hashed since the entry was sealed."""
    names: list[str] = []

    def noting(path: Path) -> str:
        names.append(path.name)
        return hash_file(path)

    monkeypatch.setattr(verified_files, "hash_file", noting)
    return names


def test_the_manifest_holds_sizes_and_hashes(entry: Path) -> None:
    manifest = json.loads((entry / MANIFEST).read_text())
    assert manifest["sub/b.bin"] == {"size": 4, "sha256": hashlib.sha256(b"beta").hexdigest()}
    assert set(manifest) == {"a.bin", "sub/b.bin"}


def test_a_start_reads_no_file_that_was_verified(entry: Path, hashed: list[str]) -> None:
    assert is_intact(entry)
    assert is_intact(entry)
    assert hashed == []


def test_an_altered_file_is_noticed_though_its_time_was_set_back(
    entry: Path, hashed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    file = entry / "a.bin"
    before = file.stat()
    with file.open("r+b") as opened:
        opened.write(b"A")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert not is_intact(entry)
    assert hashed == ["a.bin"]
    assert "a.bin was altered" in caplog.text


def test_a_replaced_file_is_noticed(entry: Path) -> None:
    file = entry / "a.bin"
    before = file.stat()
    other = entry.parent / "other"
    other.write_bytes(b"gamma" * 100)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, file)
    assert not is_intact(entry)


@pytest.mark.parametrize("damage", ["shorter", "missing", "no manifest", "a list", "no size", "no files"])
def test_what_is_torn_is_noticed_without_reading_it(damage: str, entry: Path, hashed: list[str]) -> None:
    if damage == "shorter":
        os.truncate(entry / "a.bin", 10)
    elif damage == "missing":
        (entry / "a.bin").unlink()
    elif damage == "no manifest":
        (entry / MANIFEST).unlink()
    else:
        text = {"a list": "[1]", "no size": '{"a.bin": {"sha256": "0"}}', "no files": "{}"}[damage]
        (entry / MANIFEST).write_text(text)
    assert not is_intact(entry)
    assert hashed == []


def test_a_copied_entry_is_hashed_once(entry: Path, hashed: list[str]) -> None:
    copy = entry.parent / "copy"
    shutil.copytree(entry, copy)
    assert is_intact(copy)
    assert hashed == ["a.bin", "b.bin"]
    assert is_intact(copy)
    assert len(hashed) == 2
    assert json.loads((copy / VERIFIED).read_text())["boot"] is None


def test_what_was_just_written_is_hashed_once_after_the_machine_started_anew(
    entry: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified_files, "_boot", lambda: "another start")
    assert is_intact(entry)
    assert len(hashed) == 2
    assert is_intact(entry)
    monkeypatch.setattr(verified_files, "_boot", lambda: "a third")
    assert is_intact(entry)
    assert len(hashed) == 2


def test_where_no_system_names_its_start_stamps_hold_from_the_first_verification(
    entry: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified_files, "BOOT_FILE", entry / "nothing")
    seal(entry)
    hashed.clear()
    assert is_intact(entry)
    assert len(hashed) == 2
    assert is_intact(entry)
    assert len(hashed) == 2


def test_a_variable_of_the_environment_hashes_all(
    entry: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(verified_files.VERIFY_VARIABLE, "1")
    assert is_intact(entry)
    assert is_intact(entry)
    assert len(hashed) == 4


@pytest.mark.parametrize("content", ["", "[]", '{"boot": null}', '{"boot": null, "stamps": [1]}'])
def test_broken_stamps_cost_only_time(content: str, entry: Path, hashed: list[str]) -> None:
    (entry / VERIFIED).write_text(content)
    assert is_intact(entry)
    assert len(hashed) == 2


def test_a_manifest_of_sizes_alone_is_read_as_it_was(entry: Path, hashed: list[str]) -> None:
    (entry / MANIFEST).write_text('{"a.bin": 500, "sub/b.bin": 4}')
    (entry / VERIFIED).unlink()
    assert is_intact(entry)
    assert hashed == []
    os.truncate(entry / "a.bin", 10)
    assert not is_intact(entry)


def test_a_large_file_is_hashed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified_files, "PIECE_BYTES", 1000)
    monkeypatch.setattr(verified_files, "BLOCK_BYTES", 300)
    content = bytes(range(256)) * 13
    (tmp_path / "file").write_bytes(content)
    digests = [hashlib.sha256(content[start : start + 1000]).digest() for start in range(0, len(content), 1000)]
    assert hash_file(tmp_path / "file") == hashlib.sha256(b"".join(digests)).hexdigest()
