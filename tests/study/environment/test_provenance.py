"""What is kept of a run's circumstances, and what is not: no secret reaches the disk."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from study.environment import provenance
from study.environment.provenance import PACKED_GIT_FILE, collect, packed_git_state

STARTED = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
HUB_TOKEN = "hf_" + "AbCdEf" * 5


def test_what_is_written_is_json_with_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", HUB_TOKEN)
    command = f"python -m study run a.yaml --set hub.token={HUB_TOKEN}"
    file = provenance.write(tmp_path, collect(command, STARTED))
    assert file == tmp_path / "provenance.json"
    text = file.read_text(encoding="utf-8")
    assert HUB_TOKEN not in text
    facts = json.loads(text)
    assert facts["started"] == "2026-01-31T12:00:00+00:00"
    assert facts["command"] == "python -m study run a.yaml --set 'hub.token=***'"
    assert {"python", "torch", "ray", "optuna", "pyyaml"} <= set(facts["versions"])
    assert facts["hardware"]["memory_bytes"] > 0
    assert facts["hardware"]["cores"] >= 1
    assert facts["hardware"]["cpu"]
    assert facts["platform"]
    assert any(one.startswith("numpy==") for one in facts["other_packages"])


@pytest.mark.parametrize("text", ["", "null", "[]", "{"])
def test_a_package_that_took_no_commit_along_has_none(tmp_path: Path, text: str) -> None:
    assert packed_git_state(tmp_path) is None  # Ray's own `ray job submit` makes no such file
    (tmp_path / "job").mkdir()
    (tmp_path / PACKED_GIT_FILE).write_text(text)
    assert packed_git_state(tmp_path) is None
