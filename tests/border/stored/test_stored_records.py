"""Records that a hand, a disk or a transfer has changed: left out with line and reason, and everything else stays."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.load import Study, load_study
from analysis.notebook import export_everything
from analysis.report.page import report_page
from study.errors import DONE
from study.records.layout import RESULTS_FILE
from study.records.record import flat_row
from study.records.results_table import results_table
from study.reporting.comparison import compare
from study.reporting.summary import ending_text, standing
from tests.border.hostile import Hostile, table
from tests.support.study_directory import make_record, study_settings

DEEP: Any = []
for _ in range(150):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 3, 0.5, -0.0, 1e308, -1e308, 5e-324, 10**18, 2**70, 10**400, float("nan"), float("inf"), "",
    "x", "ü\u2028\x00", "\ud800", "a" * 5000, "</script><b>", "../../x", "nf4", "complete", [], {}, [[]], [1], ["x"],
    [None], [{}], {"a": 1}, {"a": {"b": []}}, {"step": 1}, [{"step": 1}], [{"prompt": "x"}], DEEP,
)  # fmt: skip


def good(index: int) -> dict[str, Any]:
    """A complete record with something in every field."""
    found = make_record(
        index,
        eval_rows={"nats": [1.5, 2.5], "tokens": [3, 4]},
        test_rows={"nats": [1.5], "tokens": [3]},
        infeasible={"moment": "loss", "requested_bytes": 9, "available_bytes": 8, "components": {"base": 5}},
        reason="a reason",
        error="an error",
        adapter=f"adapters/t{index:03}",
    )
    values: dict[str, Any] = json.loads(found.to_json())
    return values


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON value, the first element of a list standing for all."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


def changed(index: int, path: tuple[Any, ...], value: Any) -> str:
    """The line of a good record with that value in that place."""
    record = good(index)
    where: Any = record
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = copy.deepcopy(value)
    return json.dumps(record)


def study_of(folder: Path, lines: list[str]) -> Study:
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(json.dumps(study_settings()), encoding="utf-8")
    (folder / RESULTS_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_study(folder)


@pytest.mark.parametrize("field", sorted(good(0)))
def test_any_value_in_any_place_gives_a_report_and_leaves_other_records_alone(tmp_path: Path, field: str) -> None:
    """The lines that hold, together in one study with good ones, go through everything that reads records."""
    hostile = [(path, value) for path in places(good(0)) if path[0] == field for value in VALUES]
    lines = [changed(index, path, value) for index, (path, value) in enumerate(hostile, 10)]
    untouched = [json.dumps(good(index)) for index in (1, 2)]
    study = study_of(tmp_path / "study", [untouched[0], *lines, untouched[1]])
    kept = {record.trial_id: record for record in study.records}
    alone = study_of(tmp_path / "alone", untouched)
    assert [flat_row(kept[one.trial_id]) for one in alone.records] == [flat_row(one) for one in alone.records]
    assert len(study.set_aside) >= len(VALUES) / 3 or field == "schema_version"
    assert all(one.reason and 2 <= one.number <= len(lines) + 1 for one in study.set_aside)
    assert "hold no record that counts and are left out: line " in report_page(study)
    assert "left out: line " in ending_text(study, tmp_path)
    assert "left out: line " in standing(study)
    assert results_table(study.records).num_rows == len(study.records)
    if field in ("samples", "curve"):
        assert export_everything(study, tmp_path / "figures")


def test_comparing_says_what_is_left_out(tmp_path: Path) -> None:
    for name in ("one", "two"):
        study_of(tmp_path / name, [json.dumps(good(1)), changed(2, ("measurements", "perplexity"), "much"), "{"])
    text = compare([tmp_path / "one", tmp_path / "two"])
    assert text.count("2 lines of results.jsonl hold no record that counts and are left out: line 2: measure") == 2


def directory(folder: Path, *lines: str, tail: str = "") -> Path:
    """A study's directory with a good record between these lines."""
    study_of(folder, [json.dumps(good(1)), *lines, json.dumps(good(2))])
    if tail:
        with (folder / RESULTS_FILE).open("a", encoding="utf-8") as file:
            file.write(tail)
    return folder


def say(command: str, *lines: str, more: tuple[str, ...] = ()) -> Callable[[Path, Path], list[str]]:
    return lambda folder, model: [command, str(directory(folder / "study", *lines)), *more]


LATER = json.dumps({**good(3), "schema_version": 7})
ROWS = {
    "a number as name": (changed(3, ("trial_id",), 7), "line 2: trial_id must be text"),
    "no name": (changed(3, ("trial_id",), None), "line 2: trial_id must be text"),
    "a path as name": (changed(3, ("trial_id",), "../../t1"), "trial_id must be a plain file name"),
    "text as perplexity": (changed(3, ("measurements", "perplexity"), "9"), 'of at least 0; it is "9"'),
    "an endless number": (changed(3, ("measurements", "peak_memory_bytes"), 10**400), "peak_memory_bytes must be"),
    "not a number": (changed(3, ("measurements", "perplexity"), float("nan")), "it is NaN"),
    "less than nothing": (changed(3, ("measurements", "train_steps"), -3), "whole number of at least 0"),
    "more than all": (changed(3, ("measurements", "accuracy"), 1.5), "at most 1; it is 1.5"),
    "a curve that is none": (changed(3, ("curve",), [3]), "curve.0 must be an object; it is 3"),
    "an adapter elsewhere": (changed(3, ("adapter",), "/etc"), "adapter must be null or adapters/t003"),
    "an unknown end": (changed(3, ("status",), "great"), "status must be one of complete, stopped"),
    "no configuration": (changed(3, ("config",), None), "config must be an object"),
    "another configuration": (changed(3, ("config", "rank"), 0), "rank must be an integer from 1"),
    "rows that do not match": (changed(3, ("eval_rows", "tokens"), [1]), "as many nats as tokens; it has 2 and 1"),
    "a later version": (LATER, "schema_version is 7; at most 1 can be read. Update LoRA Frontier"),
    "deep": ("[" * 5000, "more than 100 deep"),
    "wide": ("[" + "[]," * 300_000 + "[]]", "at most 200,000 lists and objects"),
    "long": ('"' + "x" * 17 * 2**20 + '"', "at most 16 MiB"),
    "no text": ("\x00\x00", "it must be JSON in UTF-8"),
    "twice": (json.dumps(good(1)), "line 1: trial t001 has a later record in line 2"),
}


@table(
    *(
        Hostile(f"{command}: {name}", say(command, line), ("1 line of results.jsonl", words), (), DONE, most_seconds=8)
        for command in ("report", "watch")
        for name, (line, words) in ROWS.items()
    ),
    Hostile(
        "report --budget", say("report", ROWS["no name"][0], more=("--budget", "8GiB")), ("line 2", "8.00 GiB: t00"),
        exit_code=DONE,
    ),
    Hostile("export", say("export", ROWS["no name"][0], more=("t003",)), ("line 2: trial_id", "must be a trial of")),
    Hostile("export of a path", say("export", more=("../../etc",)), ("must be a trial of the study that has ended",)),
    Hostile("confirm", say("confirm", ROWS["no name"][0]), ("must",), ("Error",)),
)  # fmt: skip
def test_commands_say_what_is_left_out(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


def test_a_line_that_is_being_written_is_no_matter(tmp_path: Path) -> None:
    torn = directory(tmp_path / "study", tail='{"study": "made-up", "trial')
    assert load_study(torn).set_aside == ()
    assert len(load_study(torn).records) == 2
