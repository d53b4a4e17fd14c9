"""The probe of a Ray head: what responds like one, and each way not to."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from study.cluster import ray_probe
from study.cluster.ray_probe import host_and_port, why_no_cluster
from tests.support.border.listeners import (
    DASHBOARD,
    HANGING_UP,
    HEAD,
    OTHER_GRPC,
    SECURED_HEAD,
    SETTINGS,
    SILENT,
    Listener,
    free_port,
)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (HEAD, ""),
        (HEAD + b"more", ""),
        (DASHBOARD, "no head of a Ray cluster"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "no head of a Ray cluster"),
        (SECURED_HEAD, ""),
        (OTHER_GRPC, "no head of a Ray cluster"),
        (SETTINGS + b"\0\0\4\3\0\0\0\0\1\0\0\0\1", "no head of a Ray cluster"),
        (SETTINGS + b"\xff\xff\xff\1", "said nothing within"),
        (SETTINGS + b"\xff\xff\xff\1\0\0\0\0\1", "no head of a Ray cluster"),
        (SETTINGS, "said nothing within"),
        (b"\x00", "said nothing within"),
        (SILENT, "said nothing within"),
        (HANGING_UP, "cluster|ended the connection"),
    ],
)
def test_what_listens_is_told_apart(reply: bytes | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_probe, "REPLY_SECONDS", 0.2)
    with Listener(reply) as listener:
        reason = why_no_cluster(listener.address, {})
    assert any(one in reason for one in words.split("|")) if words else reason == ""


def test_nothing_listens() -> None:
    assert why_no_cluster(f"127.0.0.1:{free_port()}", {}) == "nothing listens there (connection refused)"


def test_with_tls_it_is_enough_that_something_listens() -> None:
    with Listener(DASHBOARD) as listener:
        assert why_no_cluster(listener.address, {"RAY_USE_TLS": "1"}) == ""
        assert why_no_cluster(listener.address, {"RAY_USE_TLS": "0"}) != ""


def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *arguments, **options: over.wait(30) and [(0, 0, 0, "", ("127.0.0.1", 1))]
    )
    monkeypatch.setattr(ray_probe, "RESOLVE_SECONDS", 0.1)
    start = time.monotonic()
    assert why_no_cluster("head.example:6379", {}) == "the name head.example was not resolved within 0.1 s"
    assert time.monotonic() - start < 1
    over.set()


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("10.0.0.5:6379", ("10.0.0.5", 6379)),
        ("[::1]:6379", ("::1", 6379)),
        ("[fe80::1%eth0]:6379", ("fe80::1%eth0", 6379)),
        ("head:1", ("head", 1)),
        ("::1:6379", None),
        ("head:６３７９", None),
        ("head:6379\n", None),
    ],
)
def test_addresses_in_parts(address: str, parts: tuple[str, int] | None) -> None:
    assert host_and_port(address) == parts
