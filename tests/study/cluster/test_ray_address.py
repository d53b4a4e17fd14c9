"""Which Ray is chosen: what the user says, else one that responds, else one of our own."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from study.cluster.ray_address import noted_cluster, ray_address, responds


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine's cluster is noted."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def test_what_the_user_says_counts(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert ray_address() == "auto"


def test_without_a_cluster_the_study_makes_its_own(note: Path) -> None:
    assert ray_address() == "local"


def test_a_cluster_that_responds_is_taken_and_one_that_has_ended_is_not(note: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        note.write_text(address + "\n", encoding="utf-8")
        assert ray_address() == address
    assert not responds(address)
    assert ray_address() == "local"


@pytest.mark.parametrize("text", ["", "nothing", "host:", ":6379", "host:x1"])
def test_a_note_that_is_no_address_counts_for_nothing(note: Path, text: str) -> None:
    note.write_text(text, encoding="utf-8")
    assert noted_cluster(note) is None
