"""A Ray that starts beside the checks: one thread from its begin to its end, whatever happens between."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from study.cluster import ray_start
from study.cluster.ray_start import ENVIRONMENT, RayStart, check_dashboard, terminated_as_interrupt
from study.errors import ConfigError

SECONDS = 30.0  # that no wait of these tests comes near


class Ray:
    """Stands for Ray: its start lasts until it is let up, given up, or broken."""

    def __init__(self, error: Exception | None = None) -> None:
        self.up, self.beside = threading.Event(), threading.Event()
        self.error = error
        self.threads: list[threading.Thread] = []
        self.ended = 0
        self.dashboard: bool | None = None

    def connect(self, dashboard: bool, given_up: threading.Event) -> Callable[[], None]:
        self.dashboard = dashboard
        self.threads.append(threading.current_thread())
        self.beside.set()
        while not self.up.wait(0.005):
            if given_up.is_set():
                raise InterruptedError("given up")
        if self.error is not None:
            raise self.error
        return self.end

    def end(self) -> None:
        self.threads.append(threading.current_thread())
        self.ended += 1


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    yield
    for name in ENVIRONMENT:
        os.environ.pop(name, None)


def test_it_starts_beside_what_follows_and_ends_in_the_thread_that_started_it() -> None:
    ray = Ray()
    start = RayStart(connect=ray.connect)
    start.begin()
    assert ray.beside.wait(SECONDS)
    ray.up.set()
    start.wait()
    start.wait()
    assert ray.ended == 0
    ended_before: list[int] = []
    start.end(meanwhile=lambda: ended_before.append(len(ray.threads)))
    assert (ray.ended, len(ended_before)) == (1, 1)
    assert ray.threads[0] is ray.threads[1] is not threading.main_thread()  # or Linux would kill Ray with the thread


def test_waiting_begins_what_was_not_begun() -> None:
    ray = Ray()
    ray.up.set()
    with RayStart(dashboard=True, connect=ray.connect) as start:
        start.wait()
    assert (ray.dashboard, ray.ended) == (True, 1)


def test_its_environment_is_there_before_it_and_leaves_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "77")
    ray = Ray()
    with RayStart(connect=ray.connect) as start:
        start.begin()
        assert os.environ["TUNE_GLOBAL_CHECKPOINT_S"] == "77"
        assert os.environ["RAY_TRAIN_V2_ENABLED"] == "0"


@pytest.mark.parametrize("moment", ["never begun", "starting", "up", "failed", "ended"])
@pytest.mark.parametrize("refused", [True, False], ids=["refused", "interrupted"])
def test_whenever_it_is_given_up_nothing_is_left(moment: str, refused: bool) -> None:
    ray = Ray(OSError("no room") if moment == "failed" else None)
    start = RayStart(connect=ray.connect)
    error = ConfigError.of("study.yaml", "name", "x", "is wrong", "") if refused else KeyboardInterrupt()

    def study() -> None:
        with start:
            if moment != "never begun":
                start.begin()
                assert ray.beside.wait(SECONDS)
            if moment in ("up", "failed", "ended"):
                ray.up.set()
                assert start._is_settled.wait(SECONDS)
            if moment == "ended":
                start.end()
            raise error

    with pytest.raises(type(error)):
        study()
    assert ray.ended == (moment in ("up", "ended"))
    assert start._thread is None or not start._thread.is_alive()


def test_what_its_start_raises_is_raised_where_it_is_waited_for() -> None:
    ray = Ray(TimeoutError("Ray must start within 180 s"))
    ray.up.set()
    with RayStart(connect=ray.connect) as start:
        start.begin()
        with pytest.raises(TimeoutError, match="must start within"):
            start.wait()
    assert ray.ended == 0


def test_what_is_done_meanwhile_may_fail_and_ray_ends_all_the_same() -> None:
    ray = Ray()
    ray.up.set()
    start = RayStart(connect=ray.connect)
    start.wait()

    def fail() -> None:
        raise OSError("a full disk")

    with pytest.raises(OSError, match="a full disk"):
        start.end(fail)
    assert ray.ended == 1


def test_tune_may_keep_a_copy_of_the_study_that_holds_it() -> None:
    ray = Ray()
    with RayStart(connect=ray.connect) as start:
        start.begin()
        assert pickle.loads(pickle.dumps(start))._thread is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_signals_interrupt_and_have_their_handlers_back_afterwards(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    ray = Ray()
    start = RayStart(connect=ray.connect)

    def study() -> None:
        with terminated_as_interrupt(), start:
            start.begin()
            os.kill(os.getpid(), number)
            start.wait()

    with pytest.raises(KeyboardInterrupt):
        study()
    assert signal.getsignal(number) is before
    assert start._thread is not None
    assert not start._thread.is_alive()


def test_an_interrupt_during_an_import_is_heard_once_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torn there, Python's own lock of imports could stay locked, on which Ray's thread would wait for ever."""
    source = "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.2)\nwhole = True\n"
    (tmp_path / "interrupted_as_it_is_imported.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)

    def study() -> None:
        with terminated_as_interrupt():
            importlib.import_module("interrupted_as_it_is_imported")
            time.sleep(SECONDS)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        study()
    assert sys.modules["interrupted_as_it_is_imported"].whole
    assert time.monotonic() - began < SECONDS
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_dashboard_without_its_packages_is_refused_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_start, "find_spec", lambda name: None if name == "opencensus" else object())
    with pytest.raises(
        ConfigError, match=r"--dashboard: .*opencensus is not installed.*pip install -e '\.\[cluster\]'"
    ):
        check_dashboard()
    monkeypatch.setattr(ray_start, "find_spec", lambda name: object())
    check_dashboard()
