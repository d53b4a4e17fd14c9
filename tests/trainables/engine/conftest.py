"""What the engine's tests share: each of MIXED trained by itself, once."""

from __future__ import annotations

import pytest

from tests.support.small_engines import MIXED, join, make_engine, perplexities, run


@pytest.fixture(scope="package")
def alone() -> dict[str, float]:
    """The perplexity of each of MIXED trained by itself."""
    found = {}
    for name, one in MIXED.items():
        engine = make_engine()
        join(engine, {name: one})
        found |= perplexities(run(engine))
    return found
