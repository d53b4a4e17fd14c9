"""Waits for a Ray of the study's own to start for as long as a busy machine needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

START_SECONDS = 180.0
AGAIN_SECONDS = 0.1
# Of Ray's own, which `ray.init` reads: for its control store. That for its node is fixed at 30 s in Ray 2.60.
VARIABLE = "RAY_gcs_server_port_wait_time_s"
TOO_LATE = ("timed out", "Failed to connect to GCS", "did not become available", "Failed to get GCS")


@contextmanager
def patient(services: Any, seconds: float = START_SECONDS, now: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Has Ray wait up to so many seconds for its node to be known, instead of giving up after 30 and starting anew.

    `services` is `ray._private.services`, whose `get_node` raises RuntimeError until then.
    """
    get_node, end = services.get_node, now() + seconds

    def wait(*arguments: Any, **options: Any) -> Any:
        while True:
            try:
                return get_node(*arguments, **options)
            except RuntimeError:
                if now() >= end:
                    raise
                time.sleep(AGAIN_SECONDS)

    services.get_node = wait
    try:
        yield
    finally:
        services.get_node = get_node


def is_too_late(error: Exception) -> bool:
    """Whether Ray says that something of its own did not start in time."""
    return any(words in str(error) for words in TOO_LATE)


def busy_text(seconds: float, load: float, cores: int) -> str:
    """Returns what to say where Ray has not started within so many seconds."""
    busy = f"the machine is busy ({load:.0f} processes want its {cores} cores)"
    cause = busy if load > cores else "see its logs, ray/session_latest/logs in RAY_TMPDIR or /tmp"
    return f"Ray must start within {seconds:.0f} s and did not: {cause}. End other programs, or try again later"
