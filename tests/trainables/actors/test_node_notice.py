"""Notice of a node that is taken away: what clouds say of it, and what a trial does then."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from trainables.actors.lora_trial import CHECKPOINT_SECONDS, LEAVING_SECONDS, LoraTrial
from trainables.actors.node_notice import AMAZON, AMAZON_METADATA, GOOGLE, ask_metadata, cloud_here, taken_away
from trainables.protocol import REPORT_STEPS, News

ACTION = f"{AMAZON_METADATA}meta-data/spot/instance-action"


@pytest.mark.parametrize(("vendor", "cloud"), [(AMAZON, AMAZON), (GOOGLE, GOOGLE), ("QEMU", None), (None, None)])
def test_only_clouds_that_give_notice_are_asked(tmp_path: Path, vendor: str | None, cloud: str | None) -> None:
    file = tmp_path / "sys_vendor"
    if vendor:
        file.write_text(f"{vendor}\n")
    assert cloud_here(file) == cloud


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"action": "terminate", "time": "2026-01-31T12:00:05Z"}', True),
        ('{"action": "hibernate"}', True),
        ('{"action": "none"}', False),
        ("<html>", False),
        ("[]", False),
        (None, False),
    ],
)
def test_amazons_notice_is_asked_for_with_a_token(reply: str | None, expected: bool) -> None:
    asked: list[tuple[str, str, Mapping[str, str]]] = []

    def ask(method: str, url: str, headers: Mapping[str, str]) -> str | None:
        asked.append((method, url, headers))
        return "secret" if method == "PUT" else reply

    assert taken_away(AMAZON, ask) is expected
    assert asked[-1] == ("GET", ACTION, {"X-aws-ec2-metadata-token": "secret"})


@pytest.mark.parametrize(("reply", "expected"), [("TRUE", True), ("FALSE", False), (None, False)])
def test_googles_notice_is_the_word_true(reply: str | None, expected: bool) -> None:
    assert taken_away(GOOGLE, lambda method, url, headers: reply) is expected


class Metadata(BaseHTTPRequestHandler):
    """Returns a token, and nothing else."""

    def do_PUT(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"token " + self.headers["ttl"].encode())

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *words: Any) -> None:
        return None


def test_a_metadata_server_that_has_nothing_or_is_not_there_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which would not get there
    server = HTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    assert ask_metadata("PUT", url, {"ttl": "60"}) == "token 60"
    assert ask_metadata("GET", url, {}) is None
    server.shutdown()
    server.server_close()
    assert ask_metadata("GET", url, {}) is None


@pytest.fixture
def trial() -> LoraTrial:
    """A trial at work, whose last state is as old as one on a node that is leaving may be."""
    one = LoraTrial.__new__(LoraTrial)
    one._trial_id, one._seen, one._told_step, one._step, one._state_step = "t0", 0, -1, 40, 40
    one._state_time, one._state_seconds = time.monotonic() - LEAVING_SECONDS - 1, 0.1
    one._fetch_state = lambda: True  # type: ignore[method-assign]
    return one


def test_a_trial_on_a_leaving_node_writes_a_checkpoint_at_once(trial: LoraTrial) -> None:
    step = 40 + REPORT_STEPS
    assert LEAVING_SECONDS + 1 < CHECKPOINT_SECONDS
    assert trial._news_for_tune(News((), None, step), told_at=40) is None
    told = trial._news_for_tune(News((), None, 41, leaving=True), told_at=40)
    assert told is not None
    assert told["should_checkpoint"]
    assert trial._news_for_tune(News((), None, 40, leaving=True), told_at=40) is None  # nothing to lose


def test_a_large_state_is_not_written_without_end(trial: LoraTrial) -> None:
    trial._state_seconds = 60.0
    assert trial._news_for_tune(News((), None, 50, leaving=True), told_at=40) is None
