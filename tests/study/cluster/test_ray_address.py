"""Which Ray is chosen: what the user says where it responds, else one that responds, else one of our own."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from study.cluster import ray_address as module
from study.cluster.ray_address import noted_cluster, ray_address, responds
from study.errors import ConfigError
from tests.support.border.listeners import HEAD, Listener, free_port


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine's cluster is noted."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(module, "_responded", set())
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def test_without_a_cluster_the_study_makes_its_own(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ray_address() == "local"
    for value in ("", " ", "local"):
        monkeypatch.setenv("RAY_ADDRESS", value)
        assert ray_address() == "local"


def test_what_the_user_says_counts_where_a_head_responds(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener(HEAD) as head:
        monkeypatch.setenv("RAY_ADDRESS", f" {head.address} ")
        assert ray_address() == head.address
    assert ray_address() == head.address  # a cluster that is lost later is Ray's to notice


def test_a_cluster_that_responds_is_taken_and_one_that_has_ended_is_not(
    note: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Listener(HEAD) as head:
        note.write_text(head.address + "\n", encoding="utf-8")
        assert ray_address() == head.address
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        assert ray_address() == head.address
        monkeypatch.setenv("RAY_ADDRESS", "local")
        assert ray_address() == "local"
    assert not responds(head.address)
    monkeypatch.delenv("RAY_ADDRESS")
    assert ray_address() == "local"
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ConfigError, match="cluster of this machine; none responds"):
        ray_address()


@pytest.mark.parametrize("text", ["", "nothing", "host:", ":6379", "host:x1", "host:99999", "a b:6379"])
def test_a_note_that_is_no_address_counts_for_nothing(note: Path, text: str) -> None:
    note.write_text(text, encoding="utf-8")
    assert noted_cluster(note) is None


def test_a_note_that_is_no_file_counts_for_nothing(note: Path) -> None:
    note.mkdir()
    assert noted_cluster(note) is None


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://head.example:10001", "ray:// addresses do not run a study.*RAY_ADDRESS=head.example:6379.*submit"),
        ("ray://user:sEcret123@head:10001", r"ray://\*\*\*@head:10001.*RAY_ADDRESS=head:6379"),
        (
            "http://127.0.0.1:8265",
            "http:// addresses.*RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265 python -m study sub",
        ),
        ("anyscale://x", "RAY_ADDRESS=HOST:6379"),
        ("head.example", "HOST:PORT of a cluster's head. Write for example 10.0.0.5:6379"),
        ("head.example:", "HOST:PORT of a cluster's head"),
        ("head.example:0", "HOST:PORT of a cluster's head"),
        ("head.example:65536", "HOST:PORT of a cluster's head"),
        ("head.example:-1", "HOST:PORT of a cluster's head"),
        ("u:p@head:6379", "HOST:PORT of a cluster's head"),
        ("head:6379/path", "HOST:PORT of a cluster's head"),
        ("\x1b[31mhead", "HOST:PORT of a cluster's head"),
        ("no-such-host.invalid:6379", "the name no-such-host.invalid cannot be resolved"),
        ("x" * 300 + ":6379", "cannot be resolved"),
    ],
)
def test_an_address_that_no_study_can_use_is_refused_at_once(
    note: Path, monkeypatch: pytest.MonkeyPatch, address: str, words: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    start = time.monotonic()
    with pytest.raises(ConfigError, match=f"(?s)^RAY_ADDRESS: .*{words}.*unset it to run on this machine") as refused:
        ray_address()
    assert time.monotonic() - start < 6
    assert "sEcret123" not in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_stale_address_is_refused_within_a_second(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    start = time.monotonic()
    with pytest.raises(
        ConfigError, match=r"responds; nothing listens there \(connection refused\). Check host and port"
    ):
        ray_address()
    assert time.monotonic() - start < 1
