"""Which processes Ray starts for a study, and that none is left of a start that is given up."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from study.cluster.ray_processes import GivenUpError, few_processes, is_gone, kill, killed_where_given_up

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def family() -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """A process, and one that it has started in a session of its own, as Ray's node starts its workers."""
    parent = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    return parent, psutil.Process(int(parent.stdout.readline()))


def test_kill_ends_processes_with_all_that_they_have_started() -> None:
    (one, child_of_one), (two, child_of_two) = family(), family()
    two.terminate()
    two.wait()  # it has ended by itself, and left its child to nobody
    kill([one, two])
    assert one.poll() is not None
    assert is_gone(child_of_one)
    child_of_two.kill()


class Services:
    """Stands for Ray's module of that name: it starts three processes, and then asks for its node."""

    def __init__(self) -> None:
        self.children: list[psutil.Process] = []
        self.started: list[subprocess.Popen[bytes]] = []
        self.asked = 0

    def start_ray_process(self, command: str) -> Any:
        parent, child = family()
        self.started.append(parent)
        self.children.append(child)
        return SimpleNamespace(process=parent)

    def get_node(self, address: str, node_id: str) -> str:
        self.asked += 1
        return f"{node_id} at {address}"


MOMENTS = ("before any process", "after the first", "while the node is not known", "at the node", "after all")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_start_that_is_given_up_ends_soon_and_leaves_no_process(moment: str) -> None:
    services, given_up, began = Services(), threading.Event(), time.monotonic()
    own = services.start_ray_process, services.get_node
    up = moment in ("at the node", "after all")

    def is_up(address: str) -> bool:
        if moment == "at the node":
            given_up.set()
        return up

    def begin() -> str:
        for number in range(2):
            if moment == MOMENTS[number]:
                given_up.set()
            services.start_ray_process("gcs_server")
        if moment == "while the node is not known":
            threading.Timer(0.2, given_up.set).start()
        while True:
            try:
                return services.get_node("a:1", "n")
            except RuntimeError:
                time.sleep(0.01)

    try:
        with killed_where_given_up(services, given_up, is_up):
            found = begin()
    except GivenUpError:
        assert services.asked == 0  # a call that nothing could have ended
        assert all(one.poll() is not None for one in services.started)
        assert all(map(is_gone, services.children))
    else:  # too late: the caller ends what is there
        assert moment in ("at the node", "after all")
        assert found == "n at a:1"
        kill(services.started)
    assert (services.start_ray_process, services.get_node) == own
    assert time.monotonic() - began < 20


def test_whatever_else_breaks_a_start_leaves_no_process_either() -> None:
    services = Services()

    def begin() -> None:
        with killed_where_given_up(services, threading.Event(), lambda address: True):
            services.start_ray_process("raylet")
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        begin()
    assert all(map(is_gone, services.children))


def test_a_ray_of_few_processes_has_no_server_no_monitor_and_no_carrier_of_logs() -> None:
    services = SimpleNamespace(start_api_server=lambda *arguments, **options: ("127.0.0.1:8265", "a process"))
    parameter = SimpleNamespace(RayParams=lambda **options: options)
    own = services.start_api_server, parameter.RayParams
    with few_processes(services, parameter):
        assert services.start_api_server(False, False, port=1) == (None, None)
        assert parameter.RayParams(num_cpus=2) == {"num_cpus": 2, "no_monitor": True, "include_log_monitor": False}
    assert (services.start_api_server, parameter.RayParams) == own


def test_ray_asks_by_these_names() -> None:
    """What the above rests on: how Ray calls what is replaced, and what it does with an answer of nothing."""
    node = pytest.importorskip("ray._private.node")
    folder = Path(node.__file__).parent
    source, services = (folder / "node.py").read_text("utf-8"), (folder / "services.py").read_text("utf-8")
    assert "self._webui_url, process_info = ray._private.services.start_api_server(" in source
    assert (
        "if process_info is not None:\n            self.all_processes[ray_constants.PROCESS_TYPE_DASHBOARD]" in source
    )
    assert "if not self._ray_params.no_monitor:\n            self.start_monitor()" in source
    assert "if self._ray_params.include_log_monitor:\n            self.start_log_monitor()" in source
    assert "ray_params = ray._private.parameter.RayParams(" in (folder / "worker.py").read_text("utf-8")
    assert services.count("process_info = start_ray_process(") >= 4
