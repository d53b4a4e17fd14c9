"""Starts Ray in a thread of its own, beside a study's checks, and turns SIGTERM into what Ctrl-C does."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from types import FrameType

from study.cluster.ray_patience import START_SECONDS, VARIABLE
from study.errors import ConfigError

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our records take their place
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's ends one phase and lets the next begin
    "TUNE_GLOBAL_CHECKPOINT_S": "10",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    VARIABLE: f"{START_SECONDS:.0f}",
    "RAY_TRAIN_V2_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0 Tune then prints nothing: we have a table of our own
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
IMPORTING = "<frozen importlib._bootstrap>"
AGAIN_SECONDS = 0.05  # until it is seen again whether the main thread imports
DASHBOARD_PACKAGES = ("aiohttp", "aiohttp_cors", "opencensus", "prometheus_client")  # of `ray[default]` alone

Disconnect = Callable[[], None]
Connect = Callable[[bool, threading.Event], Disconnect]  # whether with a dashboard, and when the start is given up


def _connect(dashboard: bool, given_up: threading.Event) -> Disconnect:
    # Here and not above: importing Ray takes a part of its start, which is beside the checks too.
    from study.cluster.ray_session import connect

    return connect(dashboard, given_up)


class RayStart:
    """A Ray that starts while its study is checked, and lives until it is ended or given up.

    One thread starts and ends it: Linux kills Ray's processes with the thread that started them (PR_SET_PDEATHSIG, man
    2 prctl), which is how they die with a killed driver. Entered as a context, it has ended when that is left.
    """

    def __init__(self, dashboard: bool = False, connect: Connect = _connect) -> None:
        self._given_up, self._is_settled, self._may_end = threading.Event(), threading.Event(), threading.Event()
        self._connect = partial(connect, dashboard, self._given_up)
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> RayStart:
        return self

    def __exit__(self, *exception: object) -> None:
        self.give_up()

    def begin(self) -> None:
        """Starts Ray, or connects to a cluster, where that has not begun yet; does not wait for it."""
        if self._thread is None:
            for name, value in ENVIRONMENT.items():  # here, since the environment is no place for two threads to write
                os.environ.setdefault(name, value)
            self._thread = threading.Thread(target=self._live, name="Ray", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Returns once Ray is up. Raises what its start has raised."""
        self.begin()
        self._is_settled.wait()
        if self._error is not None:
            raise self._error

    def end(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Ends Ray, which takes seconds, and does `meanwhile` in them.

        No garbage is searched for meanwhile: an actor's handle in it would be given back to a Ray that has just ended,
        which then ends this process.
        """
        if self._thread is None or not self._thread.is_alive():
            meanwhile()
            return
        gc.collect()
        gc.disable()
        self._may_end.set()
        try:
            meanwhile()
        finally:
            self._thread.join()
            gc.enable()

    def give_up(self) -> None:
        """Ends Ray, also in the middle of its start; does nothing where it has ended or was never begun."""
        self._given_up.set()
        self.end()

    def __reduce__(self) -> tuple[type[RayStart], tuple[()]]:
        """Pickled as one that was not begun: Tune keeps a copy of the study that nobody uses."""
        return RayStart, ()

    def _live(self) -> None:
        disconnect: Disconnect = lambda: None  # noqa: E731
        try:
            disconnect = self._connect()
        except BaseException as error:  # it is the waiting thread's
            self._error = error
        finally:
            self._is_settled.set()
        self._may_end.wait()
        disconnect()


def check_dashboard() -> None:
    """Raises ConfigError where packages are missing that Ray's dashboard needs."""
    missing = [name for name in DASHBOARD_PACKAGES if find_spec(name) is None]
    if missing:
        rule = f"must have the packages of Ray's dashboard; {missing[0]} is not installed"
        raise ConfigError.of("--dashboard", "", None, rule, "Run: pip install -e '.[cluster]'")


def imports(frame: FrameType | None) -> bool:
    """Whether a frame, or one that has called it, is of Python's own code for imports."""
    while frame is not None and frame.f_code.co_filename != IMPORTING:
        frame = frame.f_back
    return frame is not None


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Has SIGTERM raise KeyboardInterrupt, as Ctrl-C does; for the main thread, the only one that may set it.

    What comes while that thread imports is raised once it has: torn there, it could leave a lock behind on which the
    imports of Ray's thread wait for ever.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not imports(frame):
            raise KeyboardInterrupt
        if signal.SIGALRM not in before:
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)

    before = {one: signal.signal(one, interrupt) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        if signal.SIGALRM in before:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in before.items():
            signal.signal(number, handler)
