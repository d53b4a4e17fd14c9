"""Messages of faults: one line each, with file, key, value, rule and remedy, and nothing a terminal would obey."""

from __future__ import annotations

from typing import Any

import pytest

from study.errors import SHOWN_CHARACTERS, Absent, ConfigError, ConfigFault, printable, shown


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (("a.yaml", "rank", 0, "must be above 0", "Write 8."), "a.yaml: rank = 0: must be above 0. Write 8."),
        (("a.yaml", "rank", None, "must be above 0.", ""), "a.yaml: rank = null: must be above 0."),
        (
            ("a.yaml", "name", Absent.MISSING, "must be given", "Add it."),
            "a.yaml: name is missing: must be given. Add it.",
        ),
        (("a.yaml", "line 3", Absent.UNSHOWN, "no tags", "Cut."), "a.yaml: line 3: no tags. Cut."),
        (("a.yaml", "", Absent.UNSHOWN, "must be a file", "Look."), "a.yaml: must be a file. Look."),
        (("--set", "", "x", "must be KEY=VALUE", "Add it."), '--set: "x": must be KEY=VALUE. Add it.'),
        (("a.yaml", "b", True, "no", "Yes."), "a.yaml: b = true: no. Yes."),
        (("a.yaml", "b", {"c": [1, "é"]}, "no", "Yes."), 'a.yaml: b = {"c": [1, "é"]}: no. Yes.'),
        (("a.yaml", "b", "one\ntwo", "no", "Yes."), 'a.yaml: b = "one\\ntwo": no. Yes.'),
        (("a\n.yaml", "b\x1b[31m", 1, "no", "Yes."), "a\\n.yaml: b\\x1b[31m = 1: no. Yes."),
        (("a.yaml", "b", 1, "first\nsecond", "Yes."), "a.yaml: b = 1: first\n  second. Yes."),
        (("a.yaml", "b", 1, "no \x1b[31m\r", "Ye\u202es."), "a.yaml: b = 1: no \\x1b[31m\\r. Ye\\u202es."),
    ],
)
def test_messages(fault: tuple[str, str, Any, str, str], message: str) -> None:
    assert str(ConfigFault(*fault)) == message


def test_an_error_has_all_faults_a_line_each() -> None:
    faults = [ConfigFault("a", f"k{n}", n, "rule", "Remedy.") for n in range(3)]
    error = ConfigError(iter(faults))
    assert error.faults == tuple(faults)
    assert str(error).splitlines() == [str(fault) for fault in faults]


def test_long_values_are_shortened_in_their_middle() -> None:
    text = shown("a" * 500 + "z" * 500)
    assert len(text) <= SHOWN_CHARACTERS + 3
    assert text.startswith('"aaa')
    assert text.endswith('zzz"')
    assert " … " in text


@pytest.mark.parametrize("value", [{1, 2}, object(), float("nan"), 10**99, b"x"])
def test_any_value_can_be_shown(value: Any) -> None:
    assert 0 < len(shown(value)) <= SHOWN_CHARACTERS + 3


def test_printable_keeps_letters_and_escapes_what_a_terminal_obeys() -> None:
    assert printable("é漢 a", 80) == "é漢 a"
    assert printable("\x1b[2J\u202e\u2028\x00", 80) == "\\x1b[2J\\u202e\\u2028\\x00"
