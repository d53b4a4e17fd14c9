"""Rows that are strange, yet right: all of them are taken, as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from study.errors import DONE
from tests.border.data.test_data_rows import ROWS, plan_data, rows
from tests.border.hostile import Hostile, table


def fine(content: bytes, **dataset: Any) -> Callable[[Path, Path], list[str]]:
    return plan_data(lambda path: path.write_bytes(content), **dataset)


TRAINED_36, TRAINED_37 = ("times over 36 rows",), ("times over 37 rows",)
STRANGE = json.dumps(
    {"prompt": "a\u2028b\u2029\x85\x00\ufeff \U0001f600", "completion": "\u202e c"}, ensure_ascii=False
)


@table(
    Hostile("a mark", fine(b"\xef\xbb\xbf" + ROWS), TRAINED_36, exit_code=DONE),
    Hostile("CRLF", fine(ROWS.replace(b"\n", b"\r\n")), TRAINED_36, exit_code=DONE),
    Hostile("CR", fine(ROWS.replace(b"\n", b"\r")), TRAINED_36, exit_code=DONE),
    Hostile("blank lines", fine(b"\n\n" + ROWS.replace(b"\n", b"\n \t\n\n")), TRAINED_36, exit_code=DONE),
    Hostile("no last line end", fine(ROWS.rstrip()), TRAINED_36, exit_code=DONE),
    Hostile(
        "spaces around", fine(b"".join(b"  " + line + b" \n" for line in ROWS.splitlines())), TRAINED_36, exit_code=DONE
    ),
    Hostile("a list", fine(b"[" + b",\n".join(ROWS.splitlines()) + b"]"), TRAINED_36, exit_code=DONE),
    Hostile(
        "a list, marked and indented",
        fine(b"\xef\xbb\xbf \n" + json.dumps([json.loads(line) for line in ROWS.splitlines()], indent=4).encode()),
        TRAINED_36,
        exit_code=DONE,
    ),
    Hostile(
        "odd line separators in strings",
        fine(ROWS + STRANGE.replace("\\u0000", "").encode()),
        TRAINED_37,
        exit_code=DONE,
    ),
    Hostile(
        "a thousand more keys",
        rows({**{f"k{n}": n for n in range(1000)}, "prompt": "a", "completion": "b"}),
        TRAINED_37,
        exit_code=DONE,
    ),
    Hostile(
        "NaN in another key", rows(b'{"prompt": "a", "completion": "b", "score": NaN}'), TRAINED_37, exit_code=DONE
    ),
    Hostile(
        "a list of 17 MiB on one line",
        fine(b"[" + b" " * (17 << 20) + b",".join(ROWS.splitlines()) + b"]"),
        TRAINED_36,
        exit_code=DONE,
    ),
    Hostile("escapes", rows(b'{"prompt": "\\u00e9\\ud83d\\ude00", "completion": "b"}'), TRAINED_37, exit_code=DONE),
    Hostile(
        "a prompt of 30,000 letters", rows({"prompt": "ab " * 9999, "completion": "b"}), TRAINED_37, exit_code=DONE
    ),
    Hostile(
        "quotes in quotes",
        rows({"prompt": 'the "prompt" and "completion"', "completion": "b"}),
        TRAINED_37,
        exit_code=DONE,
    ),
    Hostile(
        "another name",
        plan_data(
            lambda path: (path.write_bytes(b""), path.with_name("rows.txt").write_bytes(ROWS)), train_file="rows.txt"
        ),
        TRAINED_36,
        exit_code=DONE,
    ),
    Hostile(
        "a link to a file",
        plan_data(lambda path: (path.with_name("x").write_bytes(ROWS), path.symlink_to("x"))),
        TRAINED_36,
        exit_code=DONE,
    ),
)
def test_strange_rows_that_are_right(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    said = check(hostile)
    assert "left out:" not in said
