"""Recognises files that are no JSON text by their first bytes, and how to turn them into JSON Lines."""

from __future__ import annotations

import csv
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 4096
TO_ROWS = "orient='records', lines=True, force_ascii=False)"
SPREADSHEET = (b"[Content_Types].xml", b"docProps/", b"_rels/", b"xl/")
ENDINGS = frozenset(  # which a data file's name may have, more than one at times
    f".{ending}"
    for endings in (
        "gz gzip zst xz bz2 lz4 zip 7z tar tgz json jsonl ndjson csv tsv txt parquet arrow feather",
        "db sqlite sqlite3 pkl pickle xls xlsx ods html htm xml npy h5 hdf5 pdf data bin",
    )
    for ending in endings.split()
)
DELIMITERS = {",": "CSV", "\t": "TSV", ";": "CSV with semicolons", "|": "CSV with bars"}
CSV_ROWS = (
    "import csv, json, sys; [print(json.dumps(row)) for row in "
    "csv.DictReader(open(sys.argv[1], newline='', encoding='utf-8-sig')"
)


@dataclass(frozen=True)
class Kind:
    """What a file is, as a noun, and the remedy; in it `{file}` and `{out}` stand for the paths, quoted for a shell."""

    name: str
    remedy: str
    packs: bool = False  # the data themselves are within, packed or written otherwise

    def remedy_for(self, path: Path) -> str:
        """Returns the remedy with the file's own path, and a path for the rows beside it."""
        return self.remedy.replace("{file}", shlex.quote(str(path))).replace("{out}", shlex.quote(str(beside(path))))


def _unpacked(name: str, program: str) -> Kind:
    return Kind(name, f"Unpack it: `{program} -dc {{file}} > {{out}}`.", packs=True)


def _python(name: str, code: str, note: str = "") -> Kind:
    return Kind(name, f'{note}Turn it into JSON Lines: `python -c "{code}" {{file}} {{out}}`.')


def _encoded(encoding: str) -> Kind:
    return Kind(
        f"text in {encoding}", f"Turn it into UTF-8: `iconv -f {encoding} -t UTF-8 {{file}} > {{out}}`.", packs=True
    )


PARQUET = _python(
    "a Parquet file", f"import sys, pandas; pandas.read_parquet(sys.argv[1]).to_json(sys.argv[2], {TO_ROWS}"
)
ARROW = _python("an Arrow file", "import sys, datasets; datasets.Dataset.from_file(sys.argv[1]).to_json(sys.argv[2])")
SAVED = _python(
    "a folder that `datasets` saved",
    "import sys, datasets; datasets.load_from_disk(sys.argv[1]).to_json(sys.argv[2])",
)
SAVED_SPLITS = _python(
    "a folder of splits that `datasets` saved",
    "import sys, datasets; datasets.load_from_disk(sys.argv[1])['train'].to_json(sys.argv[2])",
)
SQLITE = _python(
    "an SQLite database",
    "import sys, sqlite3, pandas; pandas.read_sql('select prompt, completion from TABLE', "
    f"sqlite3.connect(sys.argv[1])).to_json(sys.argv[2], {TO_ROWS}",
    "Put its table's name for TABLE. ",
)
PICKLE = _python(
    "a Python pickle",
    f"import sys, pandas; pandas.read_pickle(sys.argv[1]).to_json(sys.argv[2], {TO_ROWS}",
    "A pickle runs code when it is opened: do so only where you trust its origin. ",
)
OFFICE = Kind(
    "a spreadsheet or another Office file (a zip archive)",
    f'Save the sheet as CSV in UTF-8 and turn that into JSON Lines: `python -c "{CSV_ROWS})]" SHEET.csv > {{out}}`.',
)
OLD_OFFICE = Kind("an old Office file, such as .xls", OFFICE.remedy)
ZIP = Kind("a zip archive", "Unpack it (`unzip {file}`) and name the file in it.", packs=True)
TAR = Kind("a tar archive", "Unpack it (`tar -xf {file}`) and name the file in it.", packs=True)
POINTER = Kind("a git-lfs pointer and not the data", "Fetch the data: run `git lfs pull` in its folder.", packs=True)
PAGE = Kind("a web page (HTML)", "A download gave a page in place of the file: take the link of the raw file.")
XML = Kind("XML", "Write its rows as JSON Lines: one object with prompt and completion a line.")
OTHER = "Write its rows as JSON Lines: one object with prompt and completion a line."
BINARY = Kind("binary data and no text", OTHER)
PLAIN = Kind("plain text and no JSON", OTHER)

MAGIC = (
    (b"\x1f\x8b", _unpacked("gzip data", "gzip")),
    (b"\x28\xb5\x2f\xfd", _unpacked("zstd data", "zstd")),
    (b"\xfd7zXZ\x00", _unpacked("xz data", "xz")),
    (b"BZh", _unpacked("bzip2 data", "bzip2")),
    (b"\x04\x22\x4d\x18", _unpacked("lz4 data", "lz4")),
    (b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", "Unpack it (`7z x {file}`) and name the file in it.", packs=True)),
    (b"PAR1", PARQUET),
    (b"ARROW1", ARROW),
    (b"\xff\xff\xff\xff", ARROW),
    (b"SQLite format 3\x00", SQLITE),
    *((b"\x80" + bytes([version]), PICKLE) for version in range(2, 6)),
    (b"\xd0\xcf\x11\xe0", OLD_OFFICE),
    (b"\x93NUMPY", Kind("a NumPy array", OTHER)),
    (b"\x89HDF", Kind("an HDF5 file", OTHER)),
    (b"%PDF", Kind("a PDF", OTHER)),
    (b"version https://git-lfs", POINTER),
    (b"\xff\xfe\x00\x00", _encoded("UTF-32")),
    (b"\x00\x00\xfe\xff", _encoded("UTF-32")),
    (b"\xff\xfe", _encoded("UTF-16")),
    (b"\xfe\xff", _encoded("UTF-16")),
)


def kind_of(head: bytes) -> Kind | None:
    """Returns what a file that begins so is, where that is no JSON text; None where it may be."""
    known = next((kind for magic, kind in MAGIC if head.startswith(magic)), None)
    if known is not None:
        return known
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return OFFICE if any(name in head for name in SPREADSHEET) else ZIP
    if head[257:262] == b"ustar":
        return TAR
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return PAGE
    if start.startswith(b"<?xml"):
        return XML
    if b"\x00" in head:
        return None if start[:1] in (b"{", b"[") and head.count(0) < 0.01 * len(head) else _without_mark(head)
    return _text_kind(head)


def folder_kind(path: Path) -> Kind | None:
    """Returns what a folder is that holds a dataset; None where it is another folder."""
    if os.path.isfile(path / "dataset_dict.json"):
        return SAVED_SPLITS
    return SAVED if os.path.isfile(path / "dataset_info.json") else None


def beside(path: Path) -> Path:
    """Returns a path for a file's rows in JSON Lines: in its folder, under its name without other endings."""
    stem = path.name
    while Path(stem).suffix.lower() in ENDINGS:
        stem = Path(stem).stem
    out = path.with_name(f"{stem}.jsonl")
    return path.with_name(f"{stem}-rows.jsonl") if out == path else out


def _without_mark(head: bytes) -> Kind:
    """UTF-16 without a mark has a zero in every other byte, where the text is mostly ASCII."""
    for encoding, high in (("UTF-16LE", head[1::2]), ("UTF-16BE", head[::2])):
        if high.count(0) > 0.8 * len(high) and head.count(0) < 0.6 * len(head):
            return _encoded(encoding)
    return BINARY


def _text_kind(head: bytes) -> Kind | None:
    """A table or plain text, where no line of the beginning starts as JSON does."""
    lines = [line for line in head.decode("utf-8-sig", "replace").splitlines() if line.strip()]
    if not lines or any(line.lstrip()[:1] in "{[" for line in lines[:20]):
        return None
    for delimiter, name in DELIMITERS.items():
        widths = [len(next(csv.reader([line], delimiter=delimiter), [])) for line in lines[:2]]
        if min(widths) > 1 or (widths[0] > 1 and {"prompt", "completion"} & set(lines[0].split(delimiter))):
            option = "" if delimiter == "," else f", delimiter={_quoted(delimiter)}"
            return Kind(
                f"{name} with the columns {', '.join(map(str.strip, lines[0].split(delimiter)))[:200]}",
                f'Turn it into JSON Lines: `python -c "{CSV_ROWS}{option})]" {{file}} > {{out}}`.',
            )
    return PLAIN


def _quoted(delimiter: str) -> str:
    return "chr(9)" if delimiter == "\t" else f"'{delimiter}'"
