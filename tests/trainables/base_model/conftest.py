"""What all tests of base models share: a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, in the test's own folder."""
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
