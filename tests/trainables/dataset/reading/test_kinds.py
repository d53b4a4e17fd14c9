"""Files that are no JSON text: recognised by their first bytes, with a command that does turn them into rows."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import pickle
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from trainables.dataset.files import DatasetError, read_rows
from trainables.dataset.reading.kinds import beside, kind_of

ROWS = [{"prompt": f"p{n}", "completion": "zwölf, \"\t'" if n else "two\nlines"} for n in range(3)]
LINES = '{"prompt": "p", "completion": "c"}\n' * 3


def run_remedy(error: DatasetError, folder: Path) -> None:
    """Runs the command that a message names between back quotes."""
    python = _command(error).replace("python -c", f"{sys.executable} -c", 1)
    subprocess.run(["bash", "-c", python], check=True, cwd=folder, capture_output=True)


def _command(error: DatasetError) -> str:
    return re.findall(r"`([^`]*)`", str(error))[-1]


def _table(path: Path, delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["prompt", "completion"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def _frame() -> object:
    return pytest.importorskip("pandas").DataFrame(ROWS)


WRITERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a.jsonl.gz": (lambda path: path.write_bytes(gzip.compress(LINES.encode())), "is gzip data"),
    "named as text.jsonl": (lambda path: path.write_bytes(gzip.compress(LINES.encode())), "is gzip data"),
    "a.bz2": (lambda path: path.write_bytes(bz2.compress(LINES.encode())), "is bzip2 data"),
    "a.jsonl.xz": (lambda path: path.write_bytes(lzma.compress(LINES.encode())), "is xz data"),
    "it's.csv": (_table, "is CSV with the columns prompt, completion"),
    "a.tsv": (lambda path: _table(path, "\t"), "is TSV with the columns"),
    "a b.csv": (lambda path: _table(path, ";"), "is CSV with semicolons"),
    "a.parquet": (lambda path: _frame().to_parquet(path), "is a Parquet file"),  # type: ignore[attr-defined]
    "a.pkl": (lambda path: _frame().to_pickle(path), "is a Python pickle"),  # type: ignore[attr-defined]
    "utf16.jsonl": (lambda path: path.write_bytes(LINES.encode("utf-16")), "is text in UTF-16."),
    "utf16le.jsonl": (lambda path: path.write_bytes(LINES.encode("utf-16-le")), "is text in UTF-16LE"),
    "utf16be.jsonl": (lambda path: path.write_bytes(LINES.encode("utf-16-be")), "is text in UTF-16BE"),
    "utf32.jsonl": (lambda path: path.write_bytes(LINES.encode("utf-32")), "is text in UTF-32"),
}
PROGRAMS = {"gzip": "gzip", "bzip2": "bzip2", "xz": "xz", "iconv": "iconv"}


@pytest.mark.parametrize("name", WRITERS)
def test_the_remedy_turns_the_file_into_rows(tmp_path: Path, name: str) -> None:
    write, words = WRITERS[name]
    write(tmp_path / name)
    with pytest.raises(DatasetError, match=re.escape(words)) as caught:
        list(read_rows(tmp_path / name, "dataset.train_file"))
    program = _command(caught.value).split()[0]
    if program in PROGRAMS and shutil.which(program) is None:
        pytest.skip(f"{program} is not there")
    run_remedy(caught.value, tmp_path)
    rows = [row for _, row in read_rows(beside(tmp_path / name), "dataset.train_file")]
    assert len(rows) == 3
    assert all(set(row) == {"prompt", "completion"} for row in rows)
    if name.endswith(("csv", "tsv", "parquet", "pkl")):
        assert rows == ROWS


def _zip(path: Path, member: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, LINES)


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "rows.jsonl")


def _sqlite(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("create table rows (prompt text, completion text)")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: _zip(path, "rows.jsonl"), "a zip archive"),
        (lambda path: _zip(path, "xl/workbook.xml"), "a spreadsheet"),
        (_tar, "a tar archive"),
        (_sqlite, "an SQLite database"),
        (lambda path: path.write_bytes(pickle.dumps(ROWS)), "a Python pickle"),
        (lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(50)), "zstd data"),
        (lambda path: path.write_bytes(b"ARROW1\0\0" + bytes(50)), "an Arrow file"),
        (lambda path: path.write_bytes(b"\xff\xff\xff\xff" + bytes(50)), "an Arrow file"),
        (lambda path: path.write_bytes(b"\n<!DOCTYPE html><html>"), "a web page"),
        (lambda path: path.write_bytes(b"<?xml version='1.0'?>"), "XML"),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid"), "a git-lfs pointer"),
        (lambda path: path.write_bytes(b"%PDF-1.7\n"), "a PDF"),
        (lambda path: path.write_bytes(bytes(5000)), "binary data"),
        (lambda path: path.write_bytes(b"Once upon a time.\nThere was a bear.\n"), "plain text and no JSON"),
        (lambda path: path.write_bytes(b"- prompt: a\n  completion: b\n"), "plain text and no JSON"),
    ],
)  # fmt: skip
def test_other_kinds_are_named(tmp_path: Path, write: Callable[[Path], object], words: str) -> None:
    write(tmp_path / "a.jsonl")
    kind = kind_of((tmp_path / "a.jsonl").read_bytes()[:4096])
    assert kind is not None
    assert kind.name.startswith(words)


@pytest.mark.parametrize(
    "text", [LINES, "\ufeff" + LINES, "\n\r\n " + LINES, "[]", "", "# a comment\n" + LINES, '"a", "b"\n{"prompt": 1}']
)
def test_what_may_be_rows_is_left_to_its_lines(text: str) -> None:
    assert kind_of(text.encode()) is None


def test_rows_get_a_path_of_their_own_beside_the_file() -> None:
    assert beside(Path("/a/rows.v1.2.jsonl.gz")) == Path("/a/rows.v1.2.jsonl")
    assert beside(Path("/a/rows.jsonl")) == Path("/a/rows-rows.jsonl")
    assert beside(Path("/a/rows")) == Path("/a/rows.jsonl")
