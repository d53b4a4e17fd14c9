"""Connects a study to Ray: to the cluster that is there, or to one of its own, of few processes."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import ray
from ray._private import parameter, services

from study.cluster.nodes import runtime_env
from study.cluster.ray_address import LOCAL, ray_address
from study.cluster.ray_patience import busy_text, is_too_late, patient
from study.cluster.ray_processes import few_processes, killed_where_given_up
from study.hardware.machine import usable_cores
from study.output import say
from trainables.timeline import timeline

RAY_ATTEMPTS = 2
NODES_SECONDS = 1.0  # that Ray's control store has for a question


def connect(dashboard: bool, given_up: threading.Event) -> Callable[[], None]:
    """Connects to the Ray cluster that is there, or starts one of the study's own; returns what ends that.

    With `dashboard`, says where Ray's dashboard is. Raises GivenUpError where the start was given up.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails stands in the records
    with timeline.stage("Ray starts"):
        url = _connect(f"lora-frontier-{os.getpid()}-{time.time_ns()}", dashboard, given_up)
    if dashboard:
        say(dashboard_text(url))
    return _end


def dashboard_text(url: str) -> str:
    """Returns where Ray's dashboard is; Ray names no address where a cluster has none."""
    if not url:
        return "This Ray cluster has no dashboard."
    return f"Ray's dashboard: http://{url} (`ray get-auth-token` prints what it asks for, where it does)"


def _end() -> None:
    with timeline.stage("Ray ends"):
        ray.shutdown()


def _connect(namespace: str, dashboard: bool, given_up: threading.Event) -> str:
    address, start = ray_address(), time.monotonic()
    for attempts_left in reversed(range(RAY_ATTEMPTS)):
        try:
            return _init(address, namespace, dashboard, given_up)
        except Exception as error:  # Ray raises plain Exception
            ray.shutdown()
            if not is_too_late(error):
                raise
            if not attempts_left:
                waited = time.monotonic() - start
                raise TimeoutError(busy_text(waited, os.getloadavg()[0], usable_cores())) from error
    raise AssertionError("the last attempt returns or raises")


def _init(address: str, namespace: str, dashboard: bool, given_up: threading.Event) -> str:
    local = address == LOCAL
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lora-frontier-code-"))
        code = runtime_env(address, os.environ, Path(folder))
        stack.enter_context(_unheard_by_children({signal.SIGTERM}))
        if local:
            stack.enter_context(killed_where_given_up(services, given_up, _is_up))
            stack.enter_context(patient(services))
            if not dashboard:
                stack.enter_context(few_processes(services, parameter))
        context = ray.init(
            address=address,
            log_to_driver=False,
            logging_level="ERROR",
            namespace=namespace,
            runtime_env=code or None,
            include_dashboard=dashboard if local else None,
        )
        return context.dashboard_url or ""


def _is_up(address: str) -> bool:
    """Whether the node of a Ray that starts is known to its control store."""
    try:
        return bool(ray._raylet.GcsClient(address=address).get_all_node_info(timeout=NODES_SECONDS))
    except Exception:  # of many kinds, while the store itself starts
        return False


@contextmanager
def _unheard_by_children(signals: set[signal.Signals]) -> Iterator[None]:
    """Processes started inside by this thread never hear these signals; what comes meanwhile is heard afterwards.

    `timeout`, systemd and batch systems send SIGTERM to every process of a study. Ray's own must outlive it, or the
    trials' states could not be kept; it has SIGINT blocked in them for the same reason, and ends them by itself.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
