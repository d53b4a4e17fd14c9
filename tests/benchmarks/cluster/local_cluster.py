"""Runs studies as jobs of a real Ray cluster on this machine, and checks each way of use.

`python -m tests.benchmarks.cluster.local_cluster [--only STEP …] [--namespaces] [--json OUT]` starts a head with its
own token, submits tiny studies, and ends what it started. `--namespaces`: head and worker are nodes of two networks.
Exit code 1 where a step does not come to what it must.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.support.cluster_here import STEP_SECONDS, Cluster, cluster, tail
from tests.benchmarks.support.namespaces import Loopback, Namespaces
from tests.support.made_up_studies import save_tiny_model, write_study_file

LONG_STEPS = 2000  # of the studies that something happens to in the middle: a minute on a fast core
NOTICE_SECONDS = 20.0  # of the 30 s that the shorter of the clouds' notices leaves
CHECKPOINTS = "*/*/checkpoint_*/training.safetensors"
SPACE = {"precision": "fp32", "rank": {"choice": [2, 8]}, "target_modules": "q_v", "learning_rate": 1.0e-3}


@dataclass(frozen=True)
class Step:
    """What a way of use came to."""

    name: str
    passed: bool
    seconds: float
    found: str


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
        f"exit code {done.returncode}, {len(records)} records; {tail(told.stdout if good else done.stdout)}",
    )


def returns_the_drivers_exit_code(there: Cluster) -> tuple[bool, str]:
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


def stops_and_continues(there: Cluster) -> tuple[bool, str]:
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
        f"{tail(stopped.stdout, 1)}; {len(saved)} checkpoints; resumed: {resumed.returncode}, same perplexity: {same}"
    )
    return good, text if good else f"{text}; {tail(resumed.stdout)}"


def outlives_a_node(there: Cluster) -> tuple[bool, str]:
    """Trials on a node that is lost in the middle continue elsewhere, to the same perplexity."""
    expected, job_id = _on_two_nodes(there, "torn")
    time.sleep(4.0)
    return _after_a_loss(there, job_id, expected)


def saves_before_a_node_leaves(there: Cluster) -> tuple[bool, str]:
    """Trials on a node that Ray drains, as for a spot machine that is taken away, write checkpoints before it goes."""
    expected, job_id = _on_two_nodes(there, "left")
    files = _directory(there, job_id) / "tune"
    too_early = list(files.glob(CHECKPOINTS))  # without a notice the first comes after half a minute
    began = time.monotonic()
    said = there.drain_worker()
    _wait(lambda: list(files.glob(CHECKPOINTS)), f"a checkpoint ({said})")
    saved = time.monotonic() - began
    good, text = _after_a_loss(there, job_id, expected)
    text = f"{len(too_early)} checkpoints before, one {saved:.1f} s after the notice was sent; {text}"
    return good and not too_early and saved < NOTICE_SECONDS, text


def _on_two_nodes(there: Cluster, name: str) -> tuple[dict[str, float], str]:
    """Perplexities of an undisturbed study, and the job of the same study that trains on two nodes now."""
    undisturbed = there.study("submit", str(_study(there, f"{name}-not", max_steps=LONG_STEPS)), "--wait")
    expected = _perplexities(_directory(there, _job_id(undisturbed.stdout)))
    there.start_worker()
    _wait(there.workers, "a second node")  # else both trials are the head's, one after another
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
    text = f"{lost}; exit code {ended.returncode}, {len(_records(directory))} records, same: {same}"
    return good, text if good else f"{text}; {tail(ended.stdout, 60)}"


STEPS: dict[str, Callable[[Cluster], tuple[bool, str]]] = {
    "token": refuses_without_the_token,
    "submit": submits_and_waits,
    "exit-code": returns_the_drivers_exit_code,
    "ray-submit": takes_rays_own_submit,
    "stop": stops_and_continues,
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


def main() -> int:
    """Runs the steps and prints what each came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--namespaces", action="store_true", help="head and worker in network namespaces; needs root")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # the cluster ends also where a time limit ends us
    with cluster(Namespaces() if options.namespaces else Loopback()) as there:
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
