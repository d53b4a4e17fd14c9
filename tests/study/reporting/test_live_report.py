"""The report served on the loopback: anew while the study runs, and to nobody else."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.load import StudyDirectoryError
from study.records.layout import LIVE_FILE
from study.reporting import live_report
from tests.support.made_up_studies import make_record, write_study_file


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each page was drawn of."""
    counts: list[int] = []

    def draw(study: Any, refresh_seconds: int | None) -> str:
        counts.append(len(study.records))
        return f"<title>{len(study.records)} records</title> refresh {refresh_seconds}"

    monkeypatch.setattr(live_report, "report_page", draw)
    return counts


@pytest.fixture
def address(tmp_path: Path, drawn: list[int]) -> Iterator[str]:
    write_study_file(tmp_path)
    with live_report.make_server(tmp_path) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        assert server.server_address[0] == "127.0.0.1"
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def get(address: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        text: str = answer.read().decode("utf-8")
        return text


def test_the_page_follows_the_records_and_is_drawn_once_for_each_state(
    address: str, tmp_path: Path, drawn: list[int]
) -> None:
    assert "<title>0 records" in get(f"{address}/")
    assert "<title>0 records" in get(f"{address}/report.html?again")
    (tmp_path / "results.jsonl").write_text(make_record("t0").to_json() + "\n", encoding="utf-8")
    assert "<title>1 records" in get(address)
    assert drawn == [0, 1]


def test_the_page_asks_for_the_next_only_while_the_study_runs(address: str, tmp_path: Path, drawn: list[int]) -> None:
    assert "refresh None" in get(address)
    (tmp_path / LIVE_FILE).write_text("{}", encoding="utf-8")
    assert f"refresh {live_report.REFRESH_SECONDS}" in get(address)
    (tmp_path / LIVE_FILE).unlink()
    assert "refresh None" in get(address)
    assert drawn == [0, 0, 0]


@pytest.mark.parametrize(("path", "host", "code"), [("/study.yaml", "localhost", 404), ("/", "evil.example", 403)])
def test_nothing_else_is_served_and_no_other_name(address: str, path: str, host: str, code: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(address + path, Host=host)
    assert refused.value.code == code


def test_a_study_that_cannot_be_read_is_said_on_the_page(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(study: Any, refresh_seconds: int | None) -> str:
        raise StudyDirectoryError("line 3 <must> be a record")

    monkeypatch.setattr(live_report, "report_page", fail)
    assert "line 3 &lt;must&gt; be a record" in get(address)
    (tmp_path / LIVE_FILE).write_text("{}", encoding="utf-8")
    assert f'http-equiv="refresh" content="{live_report.REFRESH_SECONDS}"' in get(address)  # it may be mended
