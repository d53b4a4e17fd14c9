"""Serves the report to a browser of this machine, anew while the study runs: `report DIR --serve`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from analysis.load import StudyDirectoryError, load_study
from analysis.report.page import report_page
from analysis.report.rendering import render
from study.errors import ConfigError
from study.records.layout import LIVE_FILE, PROVENANCE_FILE, RESULTS_FILE, STUDY_FILE, is_file

LOOPBACK = "127.0.0.1"  # nobody but this machine: a study's data may be private
REFRESH_SECONDS = 10


class LiveReport:
    """A study's report as it stands, drawn anew only when its files have changed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._drawn: tuple[object, str] | None = None

    @property
    def running(self) -> bool:
        """Whether a driver is at work on the study."""
        return is_file(self._directory / LIVE_FILE)

    def page(self) -> str:
        """The report's HTML; while the study runs, one that asks for the next by itself."""
        with self._lock:
            running = self.running
            state = (running, *self._state())
            if self._drawn is None or self._drawn[0] != state:
                self._drawn = (state, self._draw(REFRESH_SECONDS if running else None))
            return self._drawn[1]

    def _draw(self, refresh_seconds: int | None) -> str:
        try:
            return report_page(load_study(self._directory), refresh_seconds)
        except StudyDirectoryError as error:  # shown, and tried again: the file may be mended meanwhile
            message = str(error)
        except Exception as error:  # whatever it is, the reader gets an answer, and the server stays
            message = f"The report cannot be drawn: {type(error).__name__}: {error}"
        return str(render("unreadable.html", message=message, refresh_seconds=refresh_seconds))

    def _state(self) -> tuple[object, ...]:
        files = (self._directory / name for name in (RESULTS_FILE, STUDY_FILE, PROVENANCE_FILE))
        return tuple((file.stat().st_mtime_ns, file.stat().st_size) if is_file(file) else None for file in files)


def make_server(directory: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of the report on the loopback interface; port 0 takes a free one. Raises OSError where it is taken."""
    report = LiveReport(directory)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
            if host not in (LOOPBACK, "localhost"):  # another name that resolves here: a page of someone else's
                self.send_error(403, "only by the name of this machine's loopback")
            elif self.path.split("?", 1)[0] not in ("/", "/report.html"):
                self.send_error(404)
            else:
                self._send(report.page().encode("utf-8", "replace"))

        def _send(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: object) -> None:  # noqa: A002 (http.server's name)
            """Nothing: a refreshing page would fill the terminal."""

    return ThreadingHTTPServer((LOOPBACK, port), Handler)


def _opened(directory: Path, port: int) -> ThreadingHTTPServer:
    try:
        return make_server(directory, port)
    except OSError as error:
        rule = f"must be a port that is free and that you may use ({error.strerror or error})"
        raise ConfigError.of("--serve", "PORT", port, rule, "Leave it out, or write 0, for a free one.") from error


def serve(directory: Path, port: int, show: Callable[[str], None]) -> None:
    """Serves the report until Ctrl-C, at a port of 0 to 65,535. Raises ConfigError for one that is in use."""
    with _opened(directory, port) as server:
        address = f"http://{LOOPBACK}:{server.server_address[1]}/"
        show(f"The report: {address} (only on this machine; it refreshes while the study runs; Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            show("Ended.")
