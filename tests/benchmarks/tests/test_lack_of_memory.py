"""The check on a card goes through on a processor too, and finds innocents' weights where nothing ran out the same."""

from __future__ import annotations

from tests.benchmarks.lack_of_memory import check


def test_company_changes_nothing_in_fp32() -> None:
    """Distances are relative to what training moved the weights; fp32 sums in other orders differ by 1e-6 at most."""
    found = check("tiny", "cpu")
    for name in ("one by one", "disturbed"):
        assert all(apart < 1e-4 for apart in found[f"apart, {name}"].values())
        assert {found[name][trial]["status"] for trial in "abc"} == {"complete"}
