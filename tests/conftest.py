"""What all tests share: which begin first, and that a busy machine fails none of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

LONGEST = ("test_whole_study.py", "test_shares_ray.py")

# Other workers share the processor; where something must be fast, its test says so itself.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files before all others, so that two workers end together; the order within a file stays."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's cache without calibrations: those of larger models would move what is predicted of tiny ones."""
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))
