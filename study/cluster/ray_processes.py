"""Decides which processes a Ray of the study's own starts, and kills them where its start is given up."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psutil

KILL_SECONDS = 5.0  # until a killed process is gone


class GivenUpError(Exception):
    """Ray's start was given up: what the study asks for is refused, or its user has interrupted it."""


@contextmanager
def few_processes(services: Any, parameter: Any) -> Iterator[None]:
    """Has Ray start without those of its processes that only somebody else looks at.

    They are the server behind its dashboard, which it starts also where none is asked for, the monitor that adds nodes
    to a cluster, and the one that carries workers' logs to the driver: together half of the processor time of a start.
    `services` and `parameter` are modules of `ray._private`.
    """
    server, parameters = services.start_api_server, parameter.RayParams
    services.start_api_server = lambda *arguments, **options: (None, None)  # its URL, its process
    parameter.RayParams = partial(parameters, no_monitor=True, include_log_monitor=False)
    try:
        yield
    finally:
        services.start_api_server, parameter.RayParams = server, parameters


@contextmanager
def killed_where_given_up(services: Any, given_up: threading.Event, is_up: Callable[[str], bool]) -> Iterator[None]:
    """Has Ray's start end soon after it is given up, with all its processes. It then raises GivenUpError.

    Ray asks for its node by a call that returns once the node is there: it is made only when `is_up` has said so of the
    control store's address, since nothing could end it. RuntimeError is what Ray itself raises of a node not known yet.
    """
    start_process, get_node = services.start_ray_process, services.get_node
    started: list[subprocess.Popen[bytes]] = []

    def hold() -> None:
        if given_up.is_set():
            raise GivenUpError

    def start(*arguments: Any, **options: Any) -> Any:
        hold()
        found = start_process(*arguments, **options)
        started.append(found.process)
        return found

    def look(address: str, node_id: str) -> Any:
        hold()
        if not is_up(address):
            raise RuntimeError("The node is not known yet")
        return get_node(address, node_id)

    services.start_ray_process, services.get_node = start, look
    try:
        yield
    except BaseException:
        kill(started)
        raise
    finally:
        services.start_ray_process, services.get_node = start_process, get_node


def kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kills processes with all that they have started, and waits until they are gone."""
    family: list[psutil.Process] = []
    for process in processes:
        if process.poll() is not None:  # its number may be another's by now
            continue
        with suppress(psutil.Error):
            parent = psutil.Process(process.pid)
            parent.send_signal(signal.SIGSTOP)  # or it could start another one meanwhile
            family += [parent, *parent.children(recursive=True)]
    for one in family:
        with suppress(psutil.Error):
            one.kill()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(KILL_SECONDS)
    end = time.monotonic() + KILL_SECONDS
    while not all(map(is_gone, family)) and time.monotonic() < end:
        time.sleep(0.01)


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended, also where nobody has asked how yet: that is for its parent to do."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
