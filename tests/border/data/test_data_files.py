"""Data files that are no files of rows: of another kind, endless, huge, missing, or in another form."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import socket
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.border.data.test_data_rows import GOOD, ROWS, plan_data
from tests.border.hostile import MIB, Hostile, table
from trainables.dataset import files

Write = Callable[[Path], object]


def linked(target: str) -> Write:
    return lambda path: path.symlink_to(target)


def of(content: bytes) -> Write:
    return lambda path: path.write_bytes(content)


def sized(size: int, start: bytes = b"") -> Write:
    """A file with holes: large, and on no disk."""

    def write(path: Path) -> None:
        path.write_bytes(start)
        os.truncate(path, size)

    return write


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as there:
        before = os.getcwd()
        os.chdir(path.parent)  # a socket's path is short
        try:
            there.bind(path.name)
        finally:
            os.chdir(before)


def a_zip(member: str) -> Write:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, ROWS)

    return write


def a_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("rows.jsonl"), io.BytesIO())


def a_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("create table rows (prompt text)")


def a_saved_folder(path: Path) -> None:
    path.mkdir()
    (path / "dataset_info.json").write_text("{}")


def forbidden(path: Path) -> None:
    path.write_bytes(ROWS)
    path.chmod(0)


REGULAR = "must be a regular file"
AS_JSON = "must hold rows as JSON, in UTF-8"


@table(
    Hostile("a named pipe", plan_data(os.mkfifo), (REGULAR, "a named pipe", "Put a regular file there")),
    Hostile(
        "a link to a named pipe",
        plan_data(lambda path: (os.mkfifo(path.parent / "p"), path.symlink_to("p"))),
        ("a named pipe",),
    ),
    Hostile("/dev/zero", plan_data(linked("/dev/zero")), (REGULAR, "a device")),
    Hostile("/dev/urandom", plan_data(linked("/dev/urandom")), (REGULAR, "a device")),
    Hostile("/dev/null", plan_data(linked("/dev/null")), (REGULAR, "a device")),
    Hostile("/dev/zero by its name", plan_data(of(ROWS), train_file="/dev/zero"), ("dataset.train_file", "a device")),
    Hostile(
        "/dev/urandom to evaluate on", plan_data(of(ROWS), eval_file="/dev/urandom"), ("dataset.eval_file", "a device")
    ),
    Hostile("/dev/zero to test on", plan_data(of(ROWS), test_file="/dev/zero"), ("dataset.test_file", "a device")),
    Hostile("standard input", plan_data(of(ROWS), train_file="/dev/stdin"), ("dataset.train_file must",)),
    Hostile("a socket", plan_data(a_socket), ("dataset.train_file must", "Name a readable file")),
    Hostile("a folder", plan_data(Path.mkdir), (REGULAR, "is a folder")),
    Hostile("a saved folder", plan_data(a_saved_folder), (AS_JSON, "`datasets` saved", "load_from_disk")),
    Hostile("nothing there", plan_data(lambda path: None), ("must name a file that is there", "Check the path")),
    Hostile("a link to nothing", plan_data(linked("nowhere")), ("must name a file that is there",)),
    Hostile("a link to itself", plan_data(linked("rows.jsonl")), ("must name a readable file", "symbolic links")),
    Hostile(
        "a name of 900 letters", plan_data(of(ROWS), train_file="x" * 900), ("must name a readable file", "too long")
    ),
    Hostile(
        "a file in a file", plan_data(of(ROWS), train_file="rows.jsonl/more.jsonl"), ("dataset.train_file must name",)
    ),
)
def test_what_is_no_regular_file_is_refused_at_once(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


LONG = b'{"prompt": "' + b"x" * (17 * MIB) + b'", "completion": "c"}\n'


@table(
    Hostile("a line of 2 GB", plan_data(sized(2**31, b'{"prompt": "' + b"x" * 5000)), ("at most 1,024 MiB", "shuf -n")),
    Hostile("a line of 17 MiB", plan_data(of(LONG)), ("A line must hold at most 16 MiB", "line 1 of")),
    Hostile("a long line after good ones", plan_data(of(ROWS + LONG)), ("at most 16 MiB", "line 41 of")),
    Hostile("17 MiB without a line end", plan_data(of(b"{" + b" " * (17 * MIB))), ("at most 16 MiB",)),
    Hostile("a terabyte of zeros", plan_data(sized(2**40)), (AS_JSON, "binary data and no text")),
    Hostile(
        "a list of 200 MiB",
        plan_data(sized(200 * MIB, b"[{}, " + b" " * 5000)),
        ("at most 128 MiB where it is one JSON value", "jq -c '.[]'"),
    ),
    Hostile("two gigabytes of good rows", plan_data(sized(2**31, ROWS * 3)), ("at most 1,024 MiB", "shuf -n 100000")),
    Hostile("nothing in it", plan_data(of(b"")), ("must hold at least one row", "Add rows")),
    Hostile("a mark alone", plan_data(of(b"\xef\xbb\xbf")), ("must hold at least one row",)),
    Hostile("blank lines", plan_data(of(b"\n\r\n \t\n")), ("must hold at least one row",)),
    Hostile("an empty list", plan_data(of(b"[]")), ("must hold at least one row",)),
    Hostile("deep lists", plan_data(of(b"[" * 100_000)), ("must hold JSON", "100 deep")),
    Hostile(
        "a deep row",
        plan_data(of(ROWS + b'{"prompt":' * 5000)),
        ("row 41: every line must be one JSON object", "100 deep"),
    ),
    Hostile(
        "a list that does not end", plan_data(of(b"[" + b",".join([GOOD] * 9))), ("must hold JSON", "Correct the file")
    ),
    Hostile("a list and more", plan_data(of(b"[" + GOOD + b"]\n[]")), ("must hold JSON", "Extra data")),
)
def test_what_is_too_large_or_empty_is_refused_in_bounds(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


def test_more_rows_than_a_study_takes(check: Callable[[Hostile], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_ROWS", 39)
    check(Hostile("forty", plan_data(of(ROWS)), ("must hold at most 39 rows", "shuf -n 100000")))


@table(
    Hostile("gzip", plan_data(of(gzip.compress(ROWS))), (AS_JSON, "gzip data", "`gzip -dc "), ("Save it",)),
    Hostile("bzip2", plan_data(of(bz2.compress(ROWS))), (AS_JSON, "bzip2 data", "`bzip2 -dc ")),
    Hostile("xz", plan_data(of(lzma.compress(ROWS))), (AS_JSON, "xz data", "`xz -dc ")),
    Hostile("zstd", plan_data(of(b"\x28\xb5\x2f\xfd" + bytes(99))), (AS_JSON, "zstd data", "`zstd -dc ")),
    Hostile("lz4", plan_data(of(b"\x04\x22\x4d\x18" + bytes(99))), (AS_JSON, "lz4 data")),
    Hostile("zip", plan_data(a_zip("rows.jsonl")), (AS_JSON, "a zip archive", "`unzip ")),
    Hostile("xlsx", plan_data(a_zip("xl/workbook.xml")), (AS_JSON, "a spreadsheet", "as CSV")),
    Hostile("tar", plan_data(a_tar), (AS_JSON, "a tar archive", "`tar -xf ")),
    Hostile("xls", plan_data(of(b"\xd0\xcf\x11\xe0" + bytes(99))), (AS_JSON, "an old Office file")),
    Hostile("Parquet", plan_data(of(b"PAR1" + bytes(99))), (AS_JSON, "a Parquet file", "read_parquet"), ("Save it",)),
    Hostile("Arrow", plan_data(of(b"ARROW1\0\0" + bytes(99))), (AS_JSON, "an Arrow file", "Dataset.from_file")),
    Hostile("SQLite", plan_data(a_database), (AS_JSON, "an SQLite database", "sqlite3.connect")),
    Hostile("pickle", plan_data(of(pickle.dumps([1]))), (AS_JSON, "a Python pickle", "runs code")),
    Hostile("NumPy", plan_data(of(b"\x93NUMPY" + bytes(99))), (AS_JSON, "a NumPy array")),
    Hostile("HDF5", plan_data(of(b"\x89HDF\r\n" + bytes(99))), (AS_JSON, "an HDF5 file")),
    Hostile("PDF", plan_data(of(b"%PDF-1.7\n")), (AS_JSON, "a PDF")),
    Hostile("a web page", plan_data(of(b"<!doctype html>\n<html></html>")), (AS_JSON, "a web page", "the raw file")),
    Hostile("XML", plan_data(of(b"<?xml version='1.0'?>\n<rows/>")), (AS_JSON, "XML")),
    Hostile(
        "git-lfs",
        plan_data(of(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")),
        (AS_JSON, "git lfs pull"),
    ),
    Hostile("UTF-16", plan_data(of(ROWS.decode().encode("utf-16"))), (AS_JSON, "text in UTF-16", "iconv -f UTF-16 ")),
    Hostile("UTF-16 unmarked", plan_data(of(ROWS.decode().encode("utf-16-le"))), (AS_JSON, "iconv -f UTF-16LE")),
    Hostile("UTF-32", plan_data(of(ROWS.decode().encode("utf-32"))), (AS_JSON, "iconv -f UTF-32")),
    Hostile("random bytes", plan_data(of(bytes(range(256)) * 9)), (AS_JSON, "binary data and no text")),
    Hostile("plain text", plan_data(of(b"Once upon a time\nthere was a bear.\n")), (AS_JSON, "plain text and no JSON")),
    Hostile(
        "CSV",
        plan_data(of(b"prompt,completion\na,b\nc,d\n")),
        (AS_JSON, "CSV with the columns prompt, completion", "csv.DictReader"),
    ),
    Hostile("TSV", plan_data(of(b"prompt\tcompletion\na\tb\n")), (AS_JSON, "TSV with the columns", "chr(9)")),
    Hostile("CSV, a line long", plan_data(of(b"prompt,completion\n" + b'a,"b' + b"x" * 9999)), (AS_JSON, "CSV with")),
    Hostile("YAML", plan_data(of(b"- prompt: a\n  completion: b\n")), (AS_JSON, "plain text and no JSON")),
)
def test_another_kind_of_file_is_named_with_what_turns_it(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    said = check(hostile)
    assert len(said.strip().splitlines()) == 1


POOL = {"train_file": None, "name": "pubmedqa", "eval_examples": None}


@table(
    Hostile(
        "pubmedqa from a device",
        plan_data(of(ROWS), source="/dev/zero", **POOL),
        ("dataset.source must be", "a device"),
    ),
    Hostile(
        "pubmedqa from rows", plan_data(of(ROWS), source="rows.jsonl", **POOL), ("must hold JSON", "ori_pqal.json")
    ),
    Hostile(
        "pubmedqa from a list",
        plan_data(of(b"[" + GOOD + b"]"), source="rows.jsonl", **POOL),
        ("holds a list", "ori_pqal.json"),
    ),
    Hostile(
        "pubmedqa in Parquet", plan_data(of(b"PAR1"), source="rows.jsonl", **POOL), ("a Parquet file", "ori_pqal.json")
    ),
    Hostile(
        "pubmedqa in gzip", plan_data(of(gzip.compress(ROWS)), source="rows.jsonl", **POOL), ("gzip data", "gzip -dc")
    ),
    Hostile(
        "pubmedqa of ill records",
        plan_data(of(json.dumps({"1": 5, "2": {}}).encode()), source="rows.jsonl", **POOL),
        ("row 1: every row must be a JSON object", "row 2: every row needs `QUESTION`"),
    ),
    Hostile(
        "a hub id of 900 letters", plan_data(of(ROWS), source="a/" + "b" * 900, **POOL), ("dataset.source must name",)
    ),
    Hostile(
        "stackoverflow from a device",
        plan_data(of(ROWS), source="/dev/zero", **{**POOL, "name": "stackoverflow"}),
        ("a device",),
    ),
)
def test_a_named_data_sets_file_is_guarded_too(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
