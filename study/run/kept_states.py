"""What is kept where a study is asked to stop: the state of every trial at work, from its host (RAY)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from study.run.checkpoints import write_states

STATE_SECONDS = 90.0  # for the states of all trials at work, between two of their steps


@contextmanager
def saved_when_stopped(directory: Path, keeper: Any) -> Iterator[None]:
    """Where the study is asked to stop, keeps the state of every trial at work, for `resume` to go on from there."""
    try:
        yield
    except KeyboardInterrupt:
        save_states(directory, keeper)
        raise


def save_states(directory: Path, keeper: Any) -> None:
    """Writes the states of all trials at work; one whose host does not give it goes on from an earlier checkpoint."""
    until = time.monotonic() + STATE_SECONDS
    with _said_if_lost():
        hosts = ray.get(keeper.hosts.remote(), timeout=STATE_SECONDS)
        for answer in [host.states.remote() for host in hosts]:
            with _said_if_lost():  # one dead host must not cost the others' states
                write_states(directory, ray.get(answer, timeout=max(1.0, until - time.monotonic())))


@contextmanager
def _said_if_lost() -> Iterator[None]:
    try:
        yield
    except (ray.exceptions.RayError, TimeoutError, OSError) as error:
        logging.getLogger(__name__).warning("The states of the trials at work could not be kept: %s", error)
