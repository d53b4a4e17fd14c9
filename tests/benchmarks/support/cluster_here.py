"""Starts a real Ray cluster on this machine, with token authentication, and runs a user's commands on it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.benchmarks.support.namespaces import HEAD, WORKER, Loopback, Namespaces
from tests.support.places import ROOT

START_SECONDS = 120.0
STEP_SECONDS = 300.0
MEMORY = "--object-store-memory=100000000"
ASK_JOBS = """
import sys, urllib.error, urllib.request
headers = {"Authorization": "Bearer " + sys.argv[2]} if len(sys.argv) > 2 else {}
try:
    print(urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers=headers), timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    sys.exit(1)
"""


class Cluster:
    """A head, the workers that come and go, and what is said to them."""

    def __init__(self, folder: Path, network: Loopback | Namespaces) -> None:
        self.folder = folder
        self.network = network
        self.gcs, self.port = _free_port(), _free_port()
        self.token = secrets.token_hex(16)
        self.address = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_API_SERVER_ADDRESS": self.address, "HF_HUB_OFFLINE": "1", "HOME": str(folder),
            "LORA_FRONTIER_CACHE": str(folder / "cache"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }  # fmt: skip
        self.nodes: list[subprocess.Popen[bytes]] = []

    def start_head(self) -> None:
        """Starts the head, and waits until its job port replies."""
        self._start(
            HEAD, "--head", f"--port={self.gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.port}",
            f"--ray-client-server-port={_free_port()}", f"--temp-dir={self.folder / 'ray'}",
            "--num-cpus=2", "--num-gpus=0",
            MEMORY,
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while self.status_code(self.token) != 200:
            if time.monotonic() > deadline or self.nodes[0].poll() is not None:
                said = (self.folder / "node0.log").read_text(encoding="utf-8")
                raise RuntimeError(f"the head did not reply within {START_SECONDS:.0f} s: {tail(said)}")
            time.sleep(1.0)

    def start_worker(self) -> None:
        """Adds a node of two cores, with a folder of its own as on another machine: a node takes its code along."""
        for cut_off in self.nodes[1:]:
            _kill(cut_off)
        self.network.connect()
        folder = self.folder / f"w{len(self.nodes)}"  # short: sockets in it have long names
        head = f"--address={self.network.addresses[HEAD]}:{self.gcs}"
        self._start(WORKER, head, "--num-cpus=2", "--num-gpus=0", f"--temp-dir={folder}", MEMORY)

    def lose_worker(self) -> str:
        """Cuts the last node off where that can be, else kills it with all that runs on it; returns what was done."""
        if self.network.cut():
            return "the cable cut"
        return f"{_kill(self.nodes[-1])} processes killed"

    def workers(self) -> list[str]:
        """The ids of the living nodes but the head's, as Ray knows them."""
        listed = self.run("ray", "list", "nodes", f"--address={self.address}", "--format=json").stdout
        nodes = json.loads(listed[listed.index("[") :]) if "[" in listed else []
        return [node["node_id"] for node in nodes if node["state"] == "ALIVE" and not node["is_head_node"]]

    def drain_worker(self) -> str:
        """Has Ray drain the nodes but the head, as a cloud's notice does; returns what it says."""
        head, said = f"--address={self.network.addresses[HEAD]}:{self.gcs}", []
        for node_id in self.workers():
            drain = ["ray", "drain-node", head, f"--node-id={node_id}"]
            reason = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=notice"]
            said.append(self.run(*drain, *reason, "--deadline-remaining-seconds=120").stdout.strip())
        return " / ".join(said)

    def trials_at_work(self) -> int:
        """How many hosts' trials wait for news, on all nodes together: with one adapter a host, so many train."""
        found = 0
        living = [psutil.Process(node.pid) for node in self.nodes if node.poll() is None]
        for process in [each for node in living for each in node.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                found += "BaseModelHost.advance" in " ".join(process.cmdline())
        return found

    def status_code(self, token: str | None) -> int | None:
        """Returns the job port's HTTP status for that token; None where nothing replies yet."""
        replied = self.run(sys.executable, "-c", ASK_JOBS, f"{self.address}/api/jobs/", *([token] if token else []))
        return int(replied.stdout) if replied.returncode == 0 else None

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command as a user of the cluster does."""
        return subprocess.run(
            self.network.inside(HEAD, command), cwd=ROOT, env={**self.environment, **environment}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=STEP_SECONDS, check=False,
        )  # fmt: skip

    def study(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `python -m study …`."""
        return self.run(sys.executable, "-m", "study", *arguments)

    def end(self) -> None:
        """Ends the nodes that were started here, and nothing else."""
        for node in reversed(self.nodes):
            if node.poll() is None:
                node.send_signal(signal.SIGTERM)
                try:
                    node.wait(30)
                except subprocess.TimeoutExpired:
                    _kill(node)
        self.network.end()

    def _start(self, side: int, *options: str) -> None:
        log = (self.folder / f"node{len(self.nodes)}.log").open("wb")
        here = f"--node-ip-address={self.network.addresses[side]}"
        command = self.network.inside(side, ["ray", "start", "--block", "--disable-usage-stats", here, *options])
        self.nodes.append(
            subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        )


def _kill(node: subprocess.Popen[bytes]) -> int:
    """Kills a node with all that runs on it; returns how many processes that were."""
    if node.poll() is not None:
        return 0
    head = psutil.Process(node.pid)
    lost = [*head.children(recursive=True), head]
    for process in lost:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    node.wait(30)
    return len(lost)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def cluster(network: Loopback | Namespaces) -> Iterator[Cluster]:
    """A cluster that ends with the block. Its folder's name is short: Ray's sockets have long paths."""
    with tempfile.TemporaryDirectory(prefix="lfc", ignore_cleanup_errors=True) as folder:
        made = Cluster(Path(folder), network)
        try:
            made.start_head()
            yield made
        finally:
            made.end()


def tail(text: str, lines: int = 12) -> str:
    """The last lines of a text, in one."""
    return " / ".join(text.strip().splitlines()[-lines:])
