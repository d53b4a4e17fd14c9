"""Byte quantities: what they mean exactly, what is refused, and the way to a file and back."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.records.units import HIGHEST_BYTES, UNITS, exact_bytes, format_bytes, format_gib, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("14.56 GiB", 15_633_680_957),  # 14.56 * 2**30 = 15633680957.44
        ("8GiB", 8 * 2**30),
        ("8 gib", 8 * 2**30),
        ("  1.5\tMB ", 1_500_000),
        ("1 B", 1),
        ("0.5 KiB", 512),
        ("2.5 B", 2),  # to even
        ("1 TB", 10**12),
        ("1048576 TiB", 2**60),
        ("0.0000001 TiB", 109_951),
    ],
)
def test_parses(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "", "14.56", "GiB", "14,56 GiB", "-1 GiB", "+1 GiB", "1e3 GiB", "1 GiBs", "1 G", "1 bit", ".5 GiB", "1. GiB",
        "1 GiB 2", "0x1 B", "٣ GiB", "inf GiB", "nan B", "1" * 26 + " B", "1_000 B", "1 GiB\n2 GiB",
    ],
)  # fmt: skip
def test_refuses_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number with a unit of B, KB, MB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["0 B", "0 GiB", "0.4 B", "1048577 TiB", "9999999999999999999999999 TiB"])
def test_refuses_what_is_out_of_range(text: str) -> None:
    with pytest.raises(ValueError, match="must be from 1 B to 1048576 TiB"):
        parse_bytes(text)


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from(sorted(UNITS)))
def test_is_exact_to_half_a_byte(whole: int, thousandths: int, unit: str) -> None:
    exact = (whole + Fraction(thousandths, 1000)) * UNITS[unit]
    if not 1 <= exact <= HIGHEST_BYTES:
        return
    assert abs(parse_bytes(f"{whole}.{thousandths:03} {unit}") - exact) <= Fraction(1, 2)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (100, "100 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (15_633_680_957, "14.56 GiB"),
        (2**20 - 1, "1 MiB"),
        (2**30 - 1, "1 GiB"),
        (2**20 - 2**10, "1023 KiB"),
        (5 * 2**40, "5 TiB"),
        (5000 * 2**40, "5000 TiB"),
        (-(2**30), "-1 GiB"),
        (1.5 * 2**20, "1.5 MiB"),
        (100 * 2**30, "100 GiB"),
    ],
)
def test_formats(size: float, text: str) -> None:
    assert format_bytes(size) == text


@given(st.integers(1, HIGHEST_BYTES))
def test_what_people_see_is_within_two_digits(size: int) -> None:
    shown = format_bytes(size)
    unit = UNITS[shown.split()[1]]
    assert abs(parse_bytes(shown) - size) <= unit / 200 + 1
    assert float(shown.split()[0]) < 1024 or unit == UNITS["TiB"]


@given(st.integers(1, HIGHEST_BYTES) | st.sampled_from([2**k for k in range(61)]))
def test_exact_bytes_come_back(size: int) -> None:
    assert parse_bytes(exact_bytes(size)) == size


def test_exact_bytes_are_short_where_they_can_be() -> None:
    assert exact_bytes(15_633_680_957) == "14.56 GiB"
    assert exact_bytes(15_633_680_958) == "15633680958 B"


@pytest.mark.parametrize(
    ("size", "text"),
    [(2**33, "8.00 GiB"), (1500 * 2**30, "1,500.00 GiB"), (2**30 // 10, "102.4 MiB"), (2**30 // 10 + 1, "0.10 GiB")],
)
def test_memory_in_a_column_keeps_its_digits(size: int, text: str) -> None:
    assert format_gib(size) == text
