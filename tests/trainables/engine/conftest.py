"""What the engine's tests share: each of MIXED trained by itself, once, and no search for cycles of references."""

from __future__ import annotations

import pytest

from tests.support.small_engines import MIXED, join, make_engine, perplexities, run


@pytest.fixture(autouse=True)
def nothing_to_collect(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an exception holds is freed at once here; looking for cycles would take a test's whole time."""
    for module in ("release", "parking", "measured_costs"):
        monkeypatch.setattr(f"trainables.engine.{module}.empty_caches", lambda: None)


@pytest.fixture(scope="package")
def alone() -> dict[str, float]:
    """The perplexity of each of MIXED trained by itself."""
    found = {}
    for name, one in MIXED.items():
        engine = make_engine()
        join(engine, {name: one})
        found |= perplexities(run(engine))
    return found
