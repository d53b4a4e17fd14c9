"""A study's own Ray: what is said of its dashboard, and that one given up while it starts leaves no process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from study.checkout import CHECKOUT
from study.secrets import masked

ray_session = pytest.importorskip("study.cluster.ray_session")

MARK = "LORA_FRONTIER_TEST_OF_RAYS_START"  # inherited by all that a start begins, whoever its parent is by then
START = """
import sys, time
from study.cluster.ray_start import RayStart
with RayStart() as start:
    start.begin()
    if sys.argv[1] == "up":
        start.wait()
        import ray
        assert ray.is_initialized()
    else:
        time.sleep(float(sys.argv[1]))
    began = time.monotonic()
print(time.monotonic() - began)
"""


def test_the_dashboards_address_is_said_and_how_to_enter() -> None:
    said = ray_session.dashboard_text("localhost:1")
    assert said == "Ray's dashboard: http://localhost:1 (`ray get-auth-token` prints what it asks for, where it does)"
    assert masked(said) == said
    assert ray_session.dashboard_text("") == "This Ray cluster has no dashboard."


def left(mark: str) -> list[str]:
    """The names of the processes that live and have inherited a mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process.name())
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("moment", ["0", "1.5", "3", "up"])  # before its first process, and between them
def test_a_start_that_is_given_up_leaves_no_process(moment: str) -> None:
    mark = f"{os.getpid()}-{time.time_ns()}"
    environment = {**os.environ, MARK: mark}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-c", START, moment]
    ended = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 60  # a second where the machine is free; Ray's own patience is 180 s
    deadline = time.monotonic() + 10  # for what it has killed, and what notices that Ray has ended
    while (names := left(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert names == []
