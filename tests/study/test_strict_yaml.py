"""YAML of users: plain data is read as it looks, everything else is refused with its line."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from study import strict_yaml
from study.errors import ConfigError, ConfigFault
from study.strict_yaml import MAX_BYTES, MAX_DEPTH, parse_yaml, read_yaml, strict_text


def _fault(text: bytes | str) -> ConfigFault:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "a.yaml")
    (fault,) = caught.value.faults
    assert fault.file == "a.yaml"
    assert fault.remedy
    assert "\n" not in str(fault)
    return fault


# What plain words mean


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("TRUE", True), ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"),
        ("y", "y"), ("tRUE", "tRUE"), ("null", None), ("~", None), ("", None), ("Null", None), ("none", "none"),
        ("None", "None"), ("nULL", "nULL"), ("0", 0), ("-1", -1), ("+12", 12), ("012", 12), ("0o17", 15),
        ("0x1F", 31), ("-0x1F", "-0x1F"), ("0b11", "0b11"), ("1_000", "1_000"), ("12:30", "12:30"),
        ("12:30:45", "12:30:45"), ("2024-01-01", "2024-01-01"), ("5e-4", 5e-4), ("5.0e-4", 5e-4), ("1e3", 1000.0),
        ("1.", 1.0), (".5", 0.5), ("-.5", -0.5), ("+1.5E+3", 1500.0), (".", "."), ("1.2.3", "1.2.3"), ("e5", "e5"),
        (".inf", math.inf), ("-.INF", -math.inf), ("inf", "inf"), ("nan", "nan"), ("14.56 GiB", "14.56 GiB"),
        ("'1'", "1"), ('"true"', "true"), ("'null'", "null"), ("|\n  1\n", "1\n"), (">-\n  1\n", "1"), ("=", "="),
        ("1e999", math.inf), ("9" * 100, int("9" * 100)), ('"\\u0041\\t"', "A\t"), ("a b\n c", "a b c"),
        ("# nothing", None), ("---\n1", 1), ("---\n1\n...", 1), ("%YAML 1.1\n---\n1", 1),
    ],
)  # fmt: skip
def test_plain_words(text: str, value: Any) -> None:
    found = parse_yaml(text, "a.yaml")
    assert (type(found), found) == (type(value), value)


def test_nan_is_a_number() -> None:
    assert math.isnan(parse_yaml(".nan", "a.yaml"))


def test_mappings_lists_and_aliases_become_plain_data() -> None:
    text = "a: &x [1, {b: c}]\nd: *x\n? e\n: - 1\n"
    found = parse_yaml(text, "a.yaml")
    assert found == {"a": [1, {"b": "c"}], "d": [1, {"b": "c"}], "e": [1]}
    assert found["a"] is not found["d"]
    assert found["a"][1] is not found["d"][1]


@pytest.mark.parametrize("key", ["1", "true", "null", "~", "1.5", ".inf", "[a]", "{a: b}", ""])
def test_keys_are_text(key: str) -> None:
    fault = _fault(f"x: 1\n? {key}\n: 2\n")
    assert (fault.key, fault.rule) == ("line 2", "a key must be text")
    assert parse_yaml(f'"{"1" if key == "" else "true"}": 2', "a.yaml")


@pytest.mark.parametrize(
    "text", ["a: 1\nb: 2\na: 3", "{a: 1, b: 2, a: 3}", "a: 1\n'a': 3", 'a: 1\n"\\u0061": 3', "x: {a: 1, a: 1}"]
)
def test_duplicate_keys_are_refused(text: str) -> None:
    assert _fault(text).rule == "the key `a` must stand only once"


# What is refused


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!str", "!!int", "!", "!x", "!<tag:yaml.org,2002:str>", "!!binary"]
)
@pytest.mark.parametrize("where", ["a: 1\nb: {} c", "{} {{a: 1}}", "- {} [1]", "? {} a\n: 1"])
def test_tags_are_refused(tag: str, where: str) -> None:
    fault = _fault(where.format(tag))
    assert "tag" in fault.rule
    assert "not allowed" in fault.rule
    assert fault.key == f"line {1 + where.split('{}')[0].count(chr(10))}"


def test_no_tag_runs_anything(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    _fault(f"a: !!python/object/apply:os.mkdir ['{mark}']")
    assert not mark.exists()


@pytest.mark.parametrize("text", ["a: 1\n--- \nb: 2", "---\n1\n---\n2\n", "1\n...\n---\n2"])
def test_several_documents_are_refused(text: str) -> None:
    fault = _fault(text)
    assert fault.rule == "must be one document"
    assert fault.key.startswith("line ")


@pytest.mark.parametrize(
    "text", ["a: &x [*x]", "&x {a: *x}", "a: &x {b: [1, {c: *x}]}", "&x [&y [*x]]", "&x\n? *x\n: 1"]
)
def test_aliases_that_hold_themselves_are_refused(text: str) -> None:
    assert _fault(text).rule.startswith("the alias *x stands for what holds it")


def test_a_finished_anchor_may_be_used_inside_another() -> None:
    assert parse_yaml("- &x [1]\n- &y [*x, *x]\n- *y", "a.yaml") == [[1], [[1], [1]], [[1], [1]]]


def _doubling(levels: int, leaf: str = "1") -> str:
    lines = [f"a0: &a0 [{leaf}, {leaf}]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels)]
    return "\n".join(lines)


def test_exploding_aliases_are_refused_at_once() -> None:
    start = time.process_time()
    assert "aliases written out" in _fault(_doubling(40)).rule
    assert time.process_time() - start < 2
    assert parse_yaml(_doubling(8), "a.yaml")["a7"]


def test_exploding_text_is_refused_at_once() -> None:
    start = time.process_time()
    word = "x" * 50_000
    fault = _fault(f"a: &a {word}\nb: [{', '.join(['*a'] * 1000)}]")
    assert fault.rule == "must have at most 1 MiB of text, aliases written out"
    keys = _fault(f"- &a {word}\n" + "- {*a : 1}\n" * 1000)
    assert keys.rule == fault.rule
    assert time.process_time() - start < 4


def test_nodes_are_counted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_yaml, "MAX_NODES", 5)
    assert parse_yaml("[1, 2, 3, 4]", "a.yaml") == [1, 2, 3, 4]
    assert _fault("[1, 2, 3, 4, 5]").rule == "must have at most 5 values, aliases written out"
    assert parse_yaml("[&a [1], *a]", "a.yaml") == [[1], [1]]
    assert "at most 5 values" in _fault("[&a [1], *a, 2]").rule


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused(opening: str) -> None:
    assert _fault(opening * 1000).rule == f"must be nested at most {MAX_DEPTH} deep"


def test_depth_is_counted_exactly_and_through_aliases() -> None:
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, "a.yaml")
    assert "deep" in _fault("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)).rule
    half = "[" * 30 + "]" * 30
    assert parse_yaml(f"a: &a {half}\nb: [[*a]]", "a.yaml")
    assert "deep" in _fault(f"a: &a {half}\nb: {'[' * 25}*a{']' * 25}").rule


@pytest.mark.parametrize("text", [b"#" * (MAX_BYTES + 1), "ä" * (MAX_BYTES // 2 + 1)])
def test_over_one_mebibyte_is_refused(text: bytes | str) -> None:
    assert _fault(text).rule == "must be at most 1 MiB"


def test_size_is_counted_exactly_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_yaml, "MAX_BYTES", 6)
    assert parse_yaml("a: äb", "a.yaml") == {"a": "äb"}
    assert "must be at most" in _fault("a: ääb").rule


@pytest.mark.parametrize("text", ["a: 1\n<<: {b: 2}", "x: &x {b: 2}\na:\n  <<: *x"])
def test_merge_keys_are_refused(text: str) -> None:
    assert _fault(text).rule == "merge keys (<<) are not allowed"
    assert parse_yaml('"<<": 1', "a.yaml") == {"<<": 1}


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (b"a: 1\nb: \xff\n", "line 2", "UTF-8"),
        (b"a: 1\r\n\r\nb: \xe4\n", "line 3", "UTF-8"),
        ("a: 1".encode("utf-16"), "line 1", "UTF-8"),
        ("a: \udcff", "line 1", "UTF-8"),
        (b"a: 1\rb: \0\n", "line 2", "U+0000"),
        ("a: \x1b[31m", "line 1", "U+001B"),
        ("a: \x7f", "line 1", "U+007F"),
        ('a: 1\nb: "\\e[31m"', "line 2", "control characters"),
        ('"\\a": 1', "line 1", "control characters"),
        ('a: "\\ud800"', "line 1", "control characters"),
        ('a: "\\U99999999"', "", "must be YAML"),
        ("a: [1, 2", "line 1", "must be YAML"),
        ("a: 1\n b: 2", "line 2", "must be YAML"),
        ("a:\n\tb: 2", "line 2", "must be YAML"),
        ("a: 'x", "line 1", "must be YAML"),
        ("a: *b", "line 1", "undefined alias"),
        ("- &a 1\n- &a 2", "line 2", "duplicate anchor"),
        ("a: b: c", "line 1", "must be YAML"),
        ("a: @x", "line 1", "must be YAML"),
        ("a: %x", "line 1", "must be YAML"),
        ("%YAML 2.0\n---\na: 1", "line 1", "must be YAML"),
        ("a: !y!x 1", "line 1", "must be YAML"),
        ("a: " + "9" * 101, "line 1", "at most 100 digits"),
        ("a: 0x" + "f" * 101, "line 1", "at most 100 digits"),
    ],
)
def test_what_is_no_yaml(text: bytes | str, key: str, words: str) -> None:
    fault = _fault(text)
    assert fault.key == key
    assert words in fault.rule


# Encodings, line ends, files


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_any_line_ends_with_or_without_byte_order_mark(end: str, mark: bytes) -> None:
    text = end.join(["# é", "a: ü", "b:", "  - 1", "  - |", "    x", "    y", ""])
    assert parse_yaml(mark + text.encode(), "a.yaml") == {"a": "ü", "b": [1, "x\ny\n"]}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_with_any_line_ends(end: str) -> None:
    assert _fault(end.join(["a: 1", "b: 2", "a: 3"])).key == "line 3"


def test_read_yaml_reads_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert read_yaml(file) == {"a": 1}
    file.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="must be at most 1 MiB"):
        read_yaml(file)


@pytest.mark.parametrize("name", ["missing.yaml", ".", "x" * 5000, "a\0b"])
def test_read_yaml_refuses_what_is_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be a file") as caught:
        read_yaml(f"{tmp_path}/{name}")
    assert caught.value.faults[0].remedy == "Check its path."


def test_read_yaml_says_why_a_file_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.yaml").touch()
    monkeypatch.setattr("study.strict_yaml.open_regular", refuse)
    with pytest.raises(ConfigError, match="must be a file that can be read: Permission denied"):
        read_yaml(tmp_path / "a.yaml")


# Writing

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t\r :#'\"-?[]{}&*!|>%@`,"))
WORDS = st.sampled_from((
    "yes", "no", "on", "null", "~", "", "1", "1.0", "1e5", "5e-4", "0x1f", "0o7", "12:30", "2024-01-01", "<<", "=",
    "true", ".inf", "1_000", "NULL", "- a", "? a", "a: b", "a #b", " a", "a ", "---", "...", "&a", "*a", "!a", "%a",
    "\ufeffa",
))  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False) | TEXT | WORDS
DATA = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | WORDS, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(DATA)
def test_what_is_written_is_read_back_equal(data: Any) -> None:
    text = strict_text(data)
    assert parse_yaml(text, "a.yaml") == data
    assert yaml.safe_load(text) == data  # also by readers of YAML 1.1


def test_writes_no_aliases() -> None:
    shared = [1, 2]
    assert "&" not in strict_text({"a": shared, "b": shared})


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("ab01:-?[]{}&*!|>%@#,'\"\\ \n\t~<.")) | st.binary(max_size=40))
def test_any_text_is_data_or_a_fault(text: str | bytes) -> None:
    faults: tuple[ConfigFault, ...] = ()
    try:
        parse_yaml(text, "a.yaml")
    except ConfigError as error:
        faults = error.faults
    assert all(fault.rule and fault.remedy for fault in faults)
