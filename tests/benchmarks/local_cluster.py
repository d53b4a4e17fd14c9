"""Studies as jobs of a real Ray cluster on this machine, with token authentication: what each way of use comes to.

`python -m tests.benchmarks.local_cluster [--only STEP …] [--json OUT]` starts a head on loopback with its own token,
submits tiny studies, and ends what it started. Exit code 1 where a step does not come to what it must.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.made_up_studies import save_tiny_model, write_study_file

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
LONG_STEPS = 800  # of the studies that something happens to in the middle
MEMORY = "--object-store-memory=100000000"
STEP_SECONDS = 300.0
NOTICE_SECONDS = 25.0  # of the 30 s that the shorter of the clouds' notices leaves
SPACE = {"precision": "fp32", "rank": {"choice": [2, 8]}, "target_modules": "q_v", "learning_rate": 1.0e-3}


@dataclass(frozen=True)
class Step:
    """What a way of use came to."""

    name: str
    passed: bool
    seconds: float
    found: str


class Cluster:
    """A head on loopback, and what is said to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gcs, self.port = _free_port(), _free_port()
        self.token = secrets.token_hex(16)
        self.address = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_API_SERVER_ADDRESS": self.address, "HF_HUB_OFFLINE": "1", "HOME": str(folder),
            "LORA_FRONTIER_TRACEBACK": "1",
            "LORA_FRONTIER_CACHE": str(folder / "cache"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }  # fmt: skip
        self.nodes: list[subprocess.Popen[bytes]] = []

    def start_head(self) -> None:
        """Starts the head, and waits until its job port answers."""
        self._start(
            "--head", f"--port={self.gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.port}",
            f"--ray-client-server-port={_free_port()}", f"--temp-dir={self.folder / 'ray'}",
            "--num-cpus=2", "--num-gpus=0",
            MEMORY,
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while self.status_code(self.token) != 200:
            if time.monotonic() > deadline or self.nodes[0].poll() is not None:
                said = (self.folder / "node0.log").read_text(encoding="utf-8")
                raise RuntimeError(f"the head did not answer within {START_SECONDS:.0f} s: {_tail(said)}")
            time.sleep(1.0)

    def start_worker(self) -> None:
        """Adds a node of two cores, with a folder of its own as on another machine: a node takes its code along."""
        folder = self.folder / f"w{len(self.nodes)}"  # short: sockets in it have long names
        self._start(f"--address=127.0.0.1:{self.gcs}", "--num-cpus=2", "--num-gpus=0", f"--temp-dir={folder}", MEMORY)

    def lose_worker(self) -> int:
        """Kills the last node with all that runs on it; answers how many processes that were."""
        worker = psutil.Process(self.nodes[-1].pid)
        lost = [*worker.children(recursive=True), worker]
        for process in lost:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return len(lost)

    def drain_worker(self) -> str:
        """Has Ray drain the nodes but the head, as a cloud's notice does; answers what it says."""
        listed = self.run("ray", "list", "nodes", f"--address={self.address}", "--format=json")
        nodes = json.loads(listed.stdout[listed.stdout.index("[") :])
        said = []
        for node in nodes:
            if node["state"] == "ALIVE" and not node["is_head_node"]:
                drain = ["ray", "drain-node", f"--address=127.0.0.1:{self.gcs}", f"--node-id={node['node_id']}"]
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
        """What the job port answers to that token; None where nothing answers yet."""
        import requests

        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            return int(requests.get(f"{self.address}/api/jobs/", headers=headers, timeout=10).status_code)
        except requests.RequestException:
            return None

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command as a user of the cluster does."""
        return subprocess.run(
            command, cwd=ROOT, env={**self.environment, **environment}, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=STEP_SECONDS, check=False,
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
                    os.killpg(node.pid, signal.SIGKILL)

    def _start(self, *options: str) -> None:
        log = (self.folder / f"node{len(self.nodes)}.log").open("wb")
        command = ["ray", "start", "--block", "--disable-usage-stats", *options]
        self.nodes.append(
            subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        )


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster that ends with the block. Its folder's name is short: Ray's sockets have long paths."""
    with tempfile.TemporaryDirectory(prefix="lfc", ignore_cleanup_errors=True) as folder:
        made = Cluster(Path(folder))
        try:
            made.start_head()
            yield made
        finally:
            made.end()


# -- the steps ---------------------------------------------------------------------------------------------------------


def refuses_without_the_token(there: Cluster) -> tuple[bool, str]:
    """Nobody without the token lists or submits jobs; our command says what is missing."""
    codes = [there.status_code(None), there.status_code("wrong"), there.status_code(there.token)]
    said = there.run(sys.executable, "-m", "study", "status", RAY_AUTH_TOKEN="0" * 32)
    good = codes[0] in (401, 403) and codes[1] in (401, 403) and codes[2] == 200 and said.returncode == 1
    return good and "must know our token" in said.stdout, f"without, wrong, right: {codes}; {said.stdout.strip()[:120]}"


def submits_and_waits(there: Cluster) -> tuple[bool, str]:
    """`submit --wait` ends with 0, its records are in the shared folder, and `status` tells of them."""
    file = _study(there, "first")
    done = there.study("submit", str(file), "--wait")
    job_id = _job_id(done.stdout)
    told = there.study("status", job_id)
    records = _records(_directory(there, job_id))
    good = done.returncode == 0 and [one["status"] for one in records] == ["complete"] * 2
    good = good and f"{job_id}: succeeded (exit code 0)" in told.stdout and "The front so far" in told.stdout
    return (
        good,
        f"exit code {done.returncode}, {len(records)} records; {_tail(told.stdout if good else done.stdout)}",
    )


def answers_the_drivers_exit_code(there: Cluster) -> tuple[bool, str]:
    """A study that the nodes cannot run ends with the driver's own 2, not with Ray's 1."""
    file = _study(there, "second", base_model={"path": "/nowhere/on/any/node"})
    done = there.study("submit", str(file), "--wait")
    told = there.study("status", _job_id(done.stdout))
    good = done.returncode == 2 and "failed (exit code 2)" in told.stdout
    return good, f"exit code {done.returncode}; {told.stdout.splitlines()[0]}"


def takes_rays_own_submit(there: Cluster) -> tuple[bool, str]:
    """`ray job submit --working-dir . -- python -m study run …` does the same."""
    file, out = _study(there, "third"), there.folder / "runs" / "by-ray"
    command = ["ray", "job", "submit", f"--address={there.address}", "--working-dir=.", "--", "python", "-m", "study"]
    done = there.run(*command, "run", str(file), "--out", str(out))
    records = _records(out)
    return done.returncode == 0 and len(records) == 2, f"exit code {done.returncode}, {len(records)} records"


def stops_and_goes_on(there: Cluster) -> tuple[bool, str]:
    """A stopped job's trials leave checkpoints; the job that resumes it ends as an undisturbed one does."""
    undisturbed = there.study("submit", str(_study(there, "long", max_steps=LONG_STEPS)), "--wait")
    expected = _perplexities(_directory(there, _job_id(undisturbed.stdout)))
    job_id = _job_id(there.study("submit", str(_study(there, "stopped", max_steps=LONG_STEPS))).stdout)
    directory = _directory(there, job_id)
    _wait(lambda: there.trials_at_work() > 0, "a trial at work")
    time.sleep(4.0)
    stopped = there.study("stop", job_id)
    saved = list((directory / "tune").glob("stopped-*/*/checkpoint_*/training.safetensors"))
    resumed = there.study("submit", "--resume", str(directory), "--wait")
    found = _perplexities(directory)
    same = set(found) == set(expected) and all(abs(found[one] / expected[one] - 1) < 1e-6 for one in expected)
    good = "stopped" in stopped.stdout and bool(saved) and resumed.returncode == 0 and same
    text = (
        f"{_tail(stopped.stdout, 1)}; {len(saved)} checkpoints; resumed: {resumed.returncode}, same perplexity: {same}"
    )
    return good, text if good else f"{text}; {_tail(resumed.stdout)}"


def outlives_a_node(there: Cluster) -> tuple[bool, str]:
    """Trials on a node that is lost in the middle go on elsewhere, to the same perplexity."""
    expected, job_id = _on_two_nodes(there, "torn")
    time.sleep(4.0)
    return _after_a_loss(there, job_id, expected)


def saves_before_a_node_leaves(there: Cluster) -> tuple[bool, str]:
    """Trials on a node that Ray drains, as for a spot machine that is taken away, write checkpoints before it goes."""
    expected, job_id = _on_two_nodes(there, "left")
    said = there.drain_worker()
    began = time.monotonic()
    files = _directory(there, job_id) / "tune"
    _wait(lambda: list(files.glob("*/*/checkpoint_*/training.safetensors")), f"a checkpoint ({said})")
    saved = time.monotonic() - began
    good, text = _after_a_loss(there, job_id, expected)
    return good and saved < NOTICE_SECONDS, f"a checkpoint {saved:.1f} s after the notice; {text}"


def _on_two_nodes(there: Cluster, name: str) -> tuple[dict[str, float], str]:
    """Perplexities of an undisturbed study, and the job of the same study that trains on two nodes now."""
    undisturbed = there.study("submit", str(_study(there, f"{name}-not", max_steps=LONG_STEPS)), "--wait")
    expected = _perplexities(_directory(there, _job_id(undisturbed.stdout)))
    there.start_worker()
    time.sleep(15.0)
    job_id = _job_id(there.study("submit", str(_study(there, name, max_steps=LONG_STEPS))).stdout)
    _wait(lambda: there.trials_at_work() > 1, "two trials at work")
    return expected, job_id


def _after_a_loss(there: Cluster, job_id: str, expected: dict[str, float]) -> tuple[bool, str]:
    """Loses the last node now; what the study then comes to."""
    directory = _directory(there, job_id)
    lost = there.lose_worker()
    ended = there.study("logs", job_id, "--follow")
    found = _perplexities(directory)
    same = set(found) == set(expected) and all(abs(found[one] / expected[one] - 1) < 1e-6 for one in expected)
    good = ended.returncode == 0 and same
    text = f"{lost} processes lost; exit code {ended.returncode}, {len(_records(directory))} records, same: {same}"
    return good, text if good else f"{text}; {_tail(ended.stdout, 60)}"


STEPS: dict[str, Callable[[Cluster], tuple[bool, str]]] = {
    "token": refuses_without_the_token,
    "submit": submits_and_waits,
    "exit-code": answers_the_drivers_exit_code,
    "ray-submit": takes_rays_own_submit,
    "stop": stops_and_goes_on,
    "node-lost": outlives_a_node,
    "node-leaves": saves_before_a_node_leaves,
}


def _study(there: Cluster, name: str, max_steps: int = 12, **changes: Any) -> Path:
    folder = there.folder / name
    folder.mkdir()
    training = {"micro_batch_size": 2, "gradient_accumulation_steps": 1, "evaluations": 4, "epochs": 100}
    training |= {"max_steps": max_steps, "gradient_checkpointing": False}
    values = {"space": SPACE, "training": training, "hardware": {"gpu": "cpu", "max_adapters_per_gpu": 1}}
    values |= {"name": name, "storage": str(there.folder / "runs"), **changes}
    return write_study_file(folder, there.folder / "model", **values)


def _job_id(output: str) -> str:
    return output.partition("Submitted ")[2].partition(". ")[0]


def _directory(there: Cluster, job_id: str) -> Path:
    return there.folder / "runs" / job_id


def _records(directory: Path) -> list[dict[str, Any]]:
    file = directory / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def _perplexities(directory: Path) -> dict[str, float]:
    """By configuration's rank: each study numbers its own trials."""
    return {one["config"]["rank"]: one["measurements"]["perplexity"] for one in _records(directory)}


def _wait(holds: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + STEP_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {STEP_SECONDS:.0f} s for {what}")
        time.sleep(0.2)


def _tail(text: str, lines: int = 12) -> str:
    return " / ".join(text.strip().splitlines()[-lines:])


def main() -> int:
    """Runs the steps and prints what each came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # the cluster ends also where a time limit ends us
    with cluster() as there:
        save_tiny_model(there.folder / "model")
        for name in options.only:
            began = time.monotonic()
            passed, found = STEPS[name](there)
            results.append(Step(name, passed, round(time.monotonic() - began, 1), found))
            print(f"{name:12} {'passed' if passed else 'FAILED'} {results[-1].seconds:6.1f} s  {found}", flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in results], indent=1) + "\n")
    return 0 if all(one.passed for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
