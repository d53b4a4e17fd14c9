"""Files of raw rows, and a hub without a network, for tests of reading datasets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


def write(path: Path, value: Any) -> str:
    """Writes a text as it is, anything else as JSON; returns the path as text."""
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return str(path)


def prompt_rows(path: Path, n: int) -> str:
    """Writes `n` rows with a prompt and a completion as JSON Lines; returns the path as text."""
    return write(path, "\n".join(json.dumps({"prompt": f"row {i}", "completion": f"answer {i}"}) for i in range(n)))


def fake_hub(monkeypatch: pytest.MonkeyPatch, load: Any) -> SimpleNamespace:
    """Puts a client in place whose probe succeeds and whose `load_dataset` is `load`."""
    fake = SimpleNamespace(load_dataset=load, config=SimpleNamespace(HF_HUB_OFFLINE=False))
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr("huggingface_hub.dataset_info", lambda *_, **__: None)
    return fake
