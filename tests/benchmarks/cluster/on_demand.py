"""Runs a study on a cluster whose workers start on demand, as after `ray up cluster.yaml`.

`python -m tests.benchmarks.cluster.on_demand [--trial-seconds 20]` starts Ray's autoscaler on this machine with the
nodes that `cluster.yaml` promises, made up by Ray's fake provider, and runs the paper's grid of Llama-3-8B on them:
plan, forecast, search, driver, keeper, trial processes and records are the real ones, and hosts sleep
(`simulated_hosts.py`). Prints what became of each trial, and how many workers came; exit code 1 where an NF4 trial
did not complete, or an fp16 one, whose base takes two cards of one machine where none of it may wait in host memory,
was not refused. Ends every Ray of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.support.simulated_hosts import TRIAL_SECONDS, SimulatedKeeper
from tests.support.made_up_studies import write_study_file
from tests.support.places import ROOT
from tests.support.plan_cases import LLAMA_3_8B, PUBMEDQA

OBJECT_STORE_BYTES = 150 * 2**20
HEAD = "ray.head.default"
COMMANDS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands",
)  # fmt: skip
EXPECTED = {"nf4": "complete", "fp16": "infeasible"}


@contextmanager
def head_alone(config: Mapping[str, Any], folder: Path) -> Iterator[None]:
    """A head without cores or cards, and an autoscaler that may start the cluster file's other nodes."""
    file = folder / "autoscaling.json"
    file.write_text(json.dumps(autoscaling(config)), encoding="utf-8")
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    start = ["start", "--head", "--num-cpus=0", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    environment = {**os.environ, "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
    subprocess.run([*ray, "stop", "--force"], check=True, capture_output=True)
    try:
        command = [*ray, *start, f"--autoscaling-config={file}"]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        yield
    finally:
        subprocess.run([*ray, "stop", "--force"], check=True, capture_output=True)


def autoscaling(config: Mapping[str, Any]) -> dict[str, Any]:
    """The cluster file for Ray's fake provider, which starts nodes as processes of this machine."""
    kinds = {
        name: {
            "resources": {**kind["resources"], "object_store_memory": OBJECT_STORE_BYTES},
            "node_config": {}, "min_workers": kind["min_workers"], "max_workers": kind["max_workers"],
        }
        for name, kind in config["available_node_types"].items() if name != config["head_node_type"]
    }  # fmt: skip
    head = {"resources": {}, "node_config": {}, "max_workers": 0}
    provider = {"use_node_id_as_ip": True, "disable_node_updaters": True, "disable_launch_config_check": True}
    return {
        "cluster_name": "on-demand", "max_workers": config["max_workers"], "idle_timeout_minutes": 5,
        "upscaling_speed": 1.0, "provider": {"type": "fake_multinode", **provider}, "auth": {},
        "available_node_types": {**kinds, HEAD: head}, "head_node_type": HEAD, "file_mounts": {},
        "cluster_synced_files": [], "file_mounts_sync_continuously": False, "rsync_exclude": [], "rsync_filter": [],
        **{name: [] for name in COMMANDS},
    }  # fmt: skip


def begun(config: Mapping[str, Any], folder: Path) -> Any:
    """The study, which takes Llama-3-8B's shape for granted: nothing of the model is here."""
    from study.cluster import nodes
    from study.config.study_config import load_study
    from study.plan.preflight import Preflight
    from study.run import hosts, lifecycle

    bootstrap = folder / "ray_bootstrap_config.yaml"  # what `ray up` leaves on the head
    bootstrap.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    found = Preflight(8_030_261_248, "llama", PUBMEDQA, LLAMA_3_8B)
    setattr(nodes, "AUTOSCALER_FILE", bootstrap)  # noqa: B010
    setattr(lifecycle, "check", lambda config, here: found)  # noqa: B010
    setattr(hosts, "HostKeeper", SimulatedKeeper)  # noqa: B010
    space = yaml.safe_load((ROOT / "search_spaces" / "paper_grid.yaml").read_text(encoding="utf-8"))
    hardware = {"gpu": "t4", "gpus": 4, "base_in_host_memory": "never"}
    file = write_study_file(folder, name="on-demand", space=space, search={"algorithm": "grid"}, hardware=hardware)
    return lifecycle.begin(load_study(file), None, "python -m tests.benchmarks.cluster.on_demand", datetime.now(UTC))


def main() -> int:
    """Runs the study and says what became of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trial-seconds", type=float, default=20.0)
    options = parser.parse_args()
    os.environ |= {TRIAL_SECONDS: str(options.trial_seconds), "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "auto"}
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="lora-frontier-on-demand-") as folder, head_alone(config, Path(folder)):
        from study.run.driver import run_study

        study = begun(config, Path(folder))
        began = time.monotonic()
        try:
            run_study(study, print)
        finally:
            study.store.close()
        seconds = time.monotonic() - began
        lines = (study.directory / "results.jsonl").read_text(encoding="utf-8").splitlines()
        nodes = workers_seen()
    ended = Counter((line["config"]["precision"], line["status"]) for line in map(json.loads, lines))
    for (precision, status), count in sorted(ended.items()):
        print(f"{count} x {precision}: {status}")
    print(f"{nodes} workers came; {seconds:.0f} s")
    return 0 if nodes and all(EXPECTED[precision] == status for precision, status in ended) else 1


def workers_seen() -> int:
    """Nodes with cards that have joined since the head started, whether or not they still live."""
    import ray

    ray.init(address="auto", log_to_driver=False)
    try:
        return sum(bool(node["Resources"].get("GPU")) for node in ray.nodes())
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
