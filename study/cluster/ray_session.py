"""Connects a study to Ray, and turns SIGTERM into the end that Ctrl-C makes."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
from ray._private import services

from study.cluster.nodes import runtime_env
from study.cluster.ray_address import LOCAL, ray_address
from study.cluster.ray_patience import START_SECONDS, VARIABLE, busy_text, is_too_late, patient
from study.hardware.machine import usable_cores
from trainables.timeline import timeline

RAY_ATTEMPTS = 2
TUNE_ENVIRONMENT = {
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


@contextmanager
def ray_session(meanwhile: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Connects to the Ray cluster that is there, or starts one of the study's own that ends with it.

    Ray takes seconds to end; where all went well, `meanwhile` is done in them.
    """
    for name, value in TUNE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails stands in the records
    with timeline.stage("Ray starts"):
        _connect(f"lora-frontier-{os.getpid()}-{time.time_ns()}")
    try:
        yield
    except BaseException:
        ray.shutdown()
        raise
    ending = threading.Thread(target=_end, name="end of Ray")
    ending.start()
    try:
        meanwhile()
    finally:
        ending.join()


def _end() -> None:
    with timeline.stage("Ray ends"):
        ray.shutdown()


def _connect(namespace: str) -> None:
    address, start = ray_address(), time.monotonic()
    for attempts_left in reversed(range(RAY_ATTEMPTS)):
        try:
            _init(address, namespace)
            return
        except Exception as error:  # Ray raises plain Exception
            ray.shutdown()
            if not is_too_late(error):
                raise
            if not attempts_left:
                waited = time.monotonic() - start
                raise TimeoutError(busy_text(waited, os.getloadavg()[0], usable_cores())) from error


def _init(address: str, namespace: str) -> None:
    waiting = patient(services) if address == LOCAL else nullcontext()
    with tempfile.TemporaryDirectory(prefix="lora-frontier-code-") as folder:
        code = runtime_env(address, os.environ, Path(folder))
        with _unheard_by_children({signal.SIGTERM}), waiting:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                namespace=namespace,
                runtime_env=code or None,
            )


@contextmanager
def _unheard_by_children(signals: set[signal.Signals]) -> Iterator[None]:
    """Processes started inside never hear these signals; what comes meanwhile is heard afterwards.

    `timeout`, systemd and batch systems send SIGTERM to every process of a study. Ray's own must outlive it, or the
    trials' states could not be kept; it has SIGINT blocked in them for the same reason, and ends them by itself.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Has SIGTERM raise KeyboardInterrupt, as Ctrl-C does; entered after `ray.init`, which replaces handlers."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
