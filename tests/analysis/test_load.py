"""Reading a study directory: torn and doubled lines, other line separators, missing and spoilt files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from analysis.load import StudyDirectoryError, load_study, parse_quantity, table
from study.records import units
from study.records.objectives import Objective
from study.records.reading import SetAside, read_records
from tests.support.study_directory import MakeRecord, WriteStudy, made_up_records, study_settings

GIB = 2**30


def _with_settings(directory: Path, **changes: Any) -> Path:
    settings = {**study_settings(), **changes}
    (directory / "study.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return directory


def _error(directory: Path) -> str:
    with pytest.raises(StudyDirectoryError) as caught:
        load_study(directory)
    return str(caught.value)


# -- what is read ------------------------------------------------------------------------------------------------------


def test_a_study_is_read_whole(write_study: WriteStudy) -> None:
    study = load_study(write_study())
    assert study.name == "pubmedqa-t4"
    assert study.records == tuple(made_up_records())
    assert study.objectives[1] == Objective("peak_memory_bytes", "minimize", 1.25 * GIB)
    assert study.provenance["git"]["commit"] == "c50a4d1"
    assert study.settings["dataset"]["max_tokens"] == 512
    assert study.memory_limit is None


def test_a_directory_may_be_given_as_text_and_lend_its_name(write_study: WriteStudy) -> None:
    assert load_study(str(write_study(name=None))).name == "made-up"


def test_the_memory_limit_is_read_in_bytes(write_study: WriteStudy) -> None:
    assert load_study(write_study(hardware={"memory_limit": "8 GiB"})).memory_limit == 8 * GIB
    assert load_study(write_study(hardware=None)).memory_limit is None


def test_before_the_first_result_there_are_no_records(write_study: WriteStudy) -> None:
    directory = write_study()
    (directory / "results.jsonl").unlink()
    (directory / "provenance.json").unlink()
    study = load_study(directory)
    assert (study.records, dict(study.provenance)) == ((), {})


def test_byte_order_marks_are_no_matter(write_study: WriteStudy) -> None:
    directory = write_study()
    for name in ("study.yaml", "provenance.json"):
        file = directory / name
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_study(directory).provenance["git"]["dirty"] is False


# -- lines -------------------------------------------------------------------------------------------------------------


def test_a_line_torn_at_any_byte_is_left_out(write_study: WriteStudy, record: MakeRecord) -> None:
    short: dict[str, Any] = {"curve": [], "samples": [], "dataset": {}}
    line = record(1, reason="ü\u2028", **short).to_json().encode()
    directory = write_study([record(0, **short)])
    file = directory / "results.jsonl"
    whole = file.read_bytes()
    for length in range(0, len(line), 3):  # also in the middle of a character: two of them take five bytes
        file.write_bytes(whole + line[:length])
        assert [each.trial_id for each in read_records(file).records] == ["t000"], length
    file.write_bytes(whole + line)
    assert len(load_study(directory).records) == 2  # a whole line counts also without its line feed


def test_a_torn_line_among_others_is_set_aside(write_study: WriteStudy, record: MakeRecord) -> None:
    directory = write_study([record(0)], tail='{"study": "made-u\n' + record(1).to_json() + "\n")
    study = load_study(directory)
    assert study.records == (record(0), record(1))
    assert [one.number for one in study.set_aside] == [2]
    assert study.set_aside[0].reason.startswith("it must be JSON in UTF-8: Unterminated string")


def test_the_later_record_of_a_trial_takes_the_earlier_ones_place(write_study: WriteStudy, record: MakeRecord) -> None:
    first = record(0, status="failed", reason="its host died")
    study = load_study(write_study([first, record(1), record(0)]))
    assert study.records == (record(0), record(1))
    assert study.set_aside == (SetAside(1, "trial t000 has a later record in line 3"),)


def test_only_line_feeds_end_a_line(write_study: WriteStudy, record: MakeRecord) -> None:
    samples = [{"prompt": "a\u2028b", "base": "c\u2029d\x85e\x0bf", "tuned": "g\rh\r\ni"}]
    odd = record(0, samples=samples)
    directory = write_study([odd, record(1)])
    assert "\u2028" in (directory / "results.jsonl").read_text(encoding="utf-8")  # JSON leaves it as it is
    assert load_study(directory).records == (odd, record(1))


def test_blank_lines_and_carriage_returns_are_no_records(write_study: WriteStudy, record: MakeRecord) -> None:
    tail = "\n \r\n" + record(1).to_json() + "\r\n\n"
    assert len(load_study(write_study([record(0)], tail=tail)).records) == 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[]", "it must be an object; it is list"),
        ('{"schema_version": 1}', "study is missing"),
        ('{"schema_version": 99}', "at most 1 can be read. Update"),
        ("{} {}", "Extra data"),
        ("\\xff", "Expecting value"),
        ("[" * 100_000, "more than 100 deep"),
    ],
)
def test_a_line_that_is_no_record_is_set_aside(
    write_study: WriteStudy, record: MakeRecord, line: str, says: str
) -> None:
    study = load_study(write_study([record(0)], tail=line + "\n" + record(1).to_json() + "\n"))
    assert study.records == (record(0), record(1))
    assert [one.number for one in study.set_aside] == [2]
    assert says in study.set_aside[0].reason


@pytest.mark.parametrize(("value", "shown"), [("12.5", '"12.5"'), (True, "true"), ([1], "[1]")])
def test_measurements_are_numbers(write_study: WriteStudy, record: MakeRecord, value: Any, shown: str) -> None:
    values = json.loads(record(0).to_json())
    values["measurements"]["perplexity"] = value
    study = load_study(write_study([], tail=json.dumps(values) + "\n"))
    rule = f"measurements.perplexity must be a finite number of at least 0; it is {shown}"
    assert study.set_aside == (SetAside(1, rule),)


def test_results_that_cannot_be_read_are_named(write_study: WriteStudy) -> None:
    directory = write_study()
    (directory / "results.jsonl").unlink()
    (directory / "results.jsonl").mkdir()
    assert "results.jsonl must be readable" in _error(directory)


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_directory_that_is_no_study_is_named_with_the_remedy(tmp_path: Path) -> None:
    assert _error(tmp_path) == (
        f"{tmp_path / 'study.yaml'} must be there; it is missing. "
        "Give the directory that a run of a study made; it holds study.yaml and results.jsonl."
    )
    assert "is missing" in _error(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [", "must be YAML"),
        (b"!!python/object:os.system {}", "tag"),
        (b"- a\n- b\n", "must hold keys and values; it holds list"),
        (b"", "must hold keys and values; it holds NoneType"),
        (b"\xff\xfe\x00", "must be UTF-8 text"),
        (b"[" * 500, "nested"),
    ],
)
def test_settings_that_are_no_study_file_are_refused(write_study: WriteStudy, content: bytes, says: str) -> None:
    directory = write_study()
    (directory / "study.yaml").write_bytes(content)
    assert says in _error(directory)


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "must hold JSON"), ("[1]", "must hold a JSON object; it holds list"), ("[" * 100_000, "more than 100 deep")],
)
def test_spoilt_provenance_is_refused(write_study: WriteStudy, content: str, says: str) -> None:
    directory = write_study()
    (directory / "provenance.json").write_text(content, encoding="utf-8")
    message = _error(directory)
    assert says in message
    assert message.endswith("Remove the file: the report then leaves its section out.")


PERPLEXITY = {"metric": "perplexity", "direction": "minimize", "reference": 30}


@pytest.mark.parametrize(
    ("objectives", "says"),
    [
        (None, "objectives must be a list of 2 to 4; it is None"),
        ("perplexity", "objectives must be a list of 2 to 4; it is 'perplexity'"),
        ([PERPLEXITY], "objectives must be a list of 2 to 4; it is 1"),
        ([PERPLEXITY] * 5, "objectives must be a list of 2 to 4; it is 5"),
        ([PERPLEXITY, {**PERPLEXITY, "metric": "loss"}], "metric is 'loss', not one of perplexity"),
        ([PERPLEXITY, {**PERPLEXITY, "direction": "down"}], "direction is 'down'"),
        ([PERPLEXITY, {**PERPLEXITY, "reference": "1 parsec"}], "a quantity is a number, with a unit of B, KB"),
        ([PERPLEXITY, {**PERPLEXITY, "reference": True}], "it is 'True'"),
        ([PERPLEXITY, {"metric": "accuracy"}], "'direction'"),
        ([PERPLEXITY, "accuracy"], "each objective has a known metric"),
        ([PERPLEXITY, {**PERPLEXITY, "metric": ["perplexity"]}], "each objective has a known metric"),
    ],
)
def test_objectives_are_checked(write_study: WriteStudy, objectives: Any, says: str) -> None:
    message = _error(_with_settings(write_study(), objectives=objectives))
    assert says in message
    assert message.endswith("Restore the study.yaml that the run wrote.")


def test_a_memory_limit_that_is_no_quantity_is_refused(write_study: WriteStudy) -> None:
    message = _error(_with_settings(write_study(), hardware={"memory_limit": "much"}))
    assert "hardware.memory_limit: a quantity is a number" in message


# -- quantities --------------------------------------------------------------------------------------------------------


@given(st.integers(1, units.HIGHEST_BYTES))
def test_what_a_run_writes_is_read_back_exactly(size: int) -> None:
    assert parse_quantity(units.exact_bytes(size)) == float(size)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (12, 12.0), (0.5, 0.5), ("12.5", 12.5), ("14.56 GiB", float(round(14.56 * GIB))), (" 8gib ", 8.0 * GIB),
        ("1e3", 1000.0), ("-2", -2.0), (".5", 0.5), ("3 kb", 3000.0), ("2 TiB", 2.0**41),
    ],
)  # fmt: skip
def test_quantities(text: Any, value: float) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text", [None, True, "", "GiB", "1.2.3", "1 GiBs", "1e999", "1e308 TiB", float("nan"), float("inf"), "nan", "٣", []]
)
def test_what_is_no_quantity_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="a quantity"):
        parse_quantity(text)


# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_table_has_one_flat_row_a_trial(write_study: WriteStudy) -> None:
    rows = table(load_study(write_study()))
    assert len(rows) == len(made_up_records())
    assert {len(row) for row in rows} == {len(rows[0])}
    first, infeasible = rows[0], rows[13]
    assert (first["trial_id"], first["precision"], first["target_modules"]) == ("t000", "bf16", "q_v")
    assert first["peak_memory_bytes"] != first["predicted_peak_memory_bytes"]
    assert (infeasible["infeasible_moment"], infeasible["infeasible_requested_bytes"]) == ("loss", int(2.15 * GIB))
    assert infeasible["peak_memory_bytes"] is None
    assert not any(isinstance(value, dict | list | tuple) for row in rows for value in row.values())
