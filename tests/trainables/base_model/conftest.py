"""What all tests of base models share: a cache of their own, and probes without a process of their own."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from trainables.base_model.probe import probe as probing
from trainables.base_model.probe.look import answer


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, in the test's own folder."""
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def probed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes are made in the test's own process, which has imported what they import; others test theirs."""
    monkeypatch.setattr(probing, "_answer", cache(lambda told: json.loads(json.dumps(answer(json.loads(told))))))
