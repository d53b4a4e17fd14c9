"""Measures on a simulated cluster how long cards wait for the driver, and what a result costs it.

`python -m tests.benchmarks.scale [--gpus 4 16 64] [--trials 2000] [--trial-seconds 20] [--json OUT]` runs, for each
number of cards, a study of trials that sleep as cards would train (`simulated_hosts.py`): Ray, driver, searcher,
keeper, trial processes and records are the real ones, cards and models are not there. Prints a table; exit code 1 where
a trial was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.support.scale_measures import Sample, Times, Watch, driver_ms, spent_between
from tests.benchmarks.support.simulated_hosts import EVALUATIONS, TIMES_FILE, TRIAL_SECONDS, SimulatedKeeper
from tests.support.made_up_studies import write_study_file
from tests.support.places import ROOT

RESULTS_PER_TRIAL = EVALUATIONS + 1
SPACE = {
    "precision": "nf4", "rank": {"choice": [2, 4, 8, 16, 32, 64, 128, 256]},
    "target_modules": {"choice": ["q_v", "all_linear"]}, "lora_alpha": {"choice": [8, 16, 32, 64, 128]},
    "lora_dropout": {"choice": [0.0, 0.05, 0.1]}, "learning_rate": {"log_float": [1.0e-5, 1.0e-3]},
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What a number of cards came to; all shares and rates are of the time in which every card had work to get."""

    gpus: int
    adapters_per_gpu: int
    trials: int
    search: str
    trial_seconds: float
    seconds: float  # of the whole run, the cluster's start left out
    first_wave_seconds: float  # until all places were taken at once
    window_seconds: float  # from then until the last trial was given out
    idle_share: float | None  # of the cards' time; None where the window is empty
    idle_share_at: Mapping[str, float | None]  # in each quarter of the window
    wait_ms: Mapping[str, Mapping[str, float]]  # of trials after a report, of cards of one place between two trials
    trial_processes: int
    results_per_second: float
    driver_ms_per_result: float | None  # of CPU time
    driver_ms_per_result_at: Mapping[str, float | None]  # in each quarter of the window
    driver_mib: float  # resident, at the end
    cores_used: Mapping[str, float]  # CPU seconds a second, by part
    machine_busy: float  # of all cores, whatever used them
    lost: int
    twice: int


@contextmanager
def cluster(gpus: int, nodes: int) -> Iterator[str]:
    """A Ray cluster of this machine that says it has so many cards; returns its address."""
    from ray.cluster_utils import Cluster

    share = [gpus // nodes + (number < gpus % nodes) for number in range(nodes)]
    memory = {"object_store_memory": 150 * 2**20}
    there = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": share[0], **memory})
    try:
        for count in share[1:]:
            there.add_node(num_cpus=1, num_gpus=count, **memory)
        yield there.address
    finally:
        there.shutdown()


def run_one(options: argparse.Namespace, gpus: int, folder: Path) -> Row:
    """One study on so many cards; this process becomes its driver."""
    os.environ[TRIAL_SECONDS] = str(options.trial_seconds)
    os.environ["PYTHONPATH"] = str(ROOT)  # a study's own code goes to every node; the simulation's is in the tests
    with cluster(gpus, min(options.nodes, gpus)) as address:
        os.environ["RAY_ADDRESS"] = address
        study = _begin(options, gpus, folder)
        began = time.time()
        with Watch() as watch:
            _run(study)
        ended = time.time()
    return row_of(options, gpus, study.directory, watch.samples, (began, ended))


def _begin(options: argparse.Namespace, gpus: int, folder: Path) -> Any:
    from study.config.study_config import load_study
    from study.run import lifecycle

    setattr(lifecycle, "check", lambda config, here: None)  # noqa: B010  there is no model and no data to look at
    stopping = {"algorithm": "pareto_halving"} if options.early_stopping else {"algorithm": "none"}
    file = write_study_file(
        folder,
        name="simulated",
        space=SPACE,
        search={"algorithm": options.search, "trials": options.trials, "seed": 0},
        hardware={"gpu": "t4", "gpus": gpus, "max_adapters_per_gpu": options.adapters_per_gpu},
        early_stopping=stopping,
        training={"gradient_accumulation_steps": 16, "evaluations": EVALUATIONS},
    )
    command = f"python -m tests.benchmarks.scale --gpus {gpus}"
    return lifecycle.begin(load_study(file), None, command, datetime.now(UTC))


def _run(study: Any) -> None:
    from study.run import hosts
    from study.run.driver import run_study

    setattr(hosts, "HostKeeper", SimulatedKeeper)  # noqa: B010
    try:
        run_study(study, lambda line: None)
    finally:
        study.store.close()


def row_of(
    options: argparse.Namespace, gpus: int, directory: Path, samples: Sequence[Sample], whole: tuple[float, float]
) -> Row:
    """The row of a study that has run."""
    times = Times(**json.loads((directory / TIMES_FILE).read_text(encoding="utf-8")))
    begin, end = times.window(gpus * options.adapters_per_gpu)
    parts, seconds = spent_between(samples, begin, end)
    bounds = [begin + (end - begin) * number / 4 for number in range(5)]
    quarters = {f"quarter {number}": pair for number, pair in enumerate(pairwise(bounds), 1)}
    inside = [one for one in samples if begin <= one.time <= end] or samples
    counts = Counter(json.loads(line)["trial_id"] for line in (directory / "results.jsonl").open(encoding="utf-8"))
    results = sum(begin <= piece[2] < end for piece in times.pieces)
    return Row(
        gpus=gpus,
        adapters_per_gpu=options.adapters_per_gpu,
        trials=options.trials,
        search=options.search,
        trial_seconds=options.trial_seconds,
        seconds=round(whole[1] - whole[0], 1),
        first_wave_seconds=round(begin - whole[0], 1),
        window_seconds=round(end - begin, 1),
        idle_share=times.idle_share(gpus, begin, end),
        idle_share_at={name: times.idle_share(gpus, *pair) for name, pair in quarters.items()},
        wait_ms=times.waits() if options.adapters_per_gpu == 1 else {},
        trial_processes=times.actors,
        results_per_second=results / (end - begin) if end > begin else 0.0,
        driver_ms_per_result=driver_ms(times, samples, begin, end),
        driver_ms_per_result_at={name: driver_ms(times, samples, *pair) for name, pair in quarters.items()},
        driver_mib=samples[-1].driver_bytes / 2**20,
        cores_used={name: round(value / seconds, 3) for name, value in parts.items()} if seconds else {},
        machine_busy=sum(one.machine_busy for one in inside) / len(inside),
        lost=options.trials - len(counts),
        twice=sum(count > 1 for count in counts.values()),
    )


@dataclass
class Table:
    """Rows, and the machine that they were measured on."""

    rows: list[Row] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path | None) -> Table:
        """The rows of an earlier call, to continue with; none where there is no file."""
        there = json.loads(file.read_text(encoding="utf-8"))["rows"] if file and file.is_file() else []
        return cls([Row(**row) for row in there])

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        machine = {"cores": os.cpu_count(), "memory_gib": round(psutil.virtual_memory().total / 2**30, 1)}
        return {"machine": machine, "rows": [asdict(row) for row in self.rows]}

    def text(self) -> str:
        """The rows as a table of Markdown."""
        lines = [
            "| GPUs x adapters | trials | trial s | idle | results/s | driver ms/result | driver MiB | cores busy |"
        ]
        lines.append("|---" * 8 + "|")
        for row in self.rows:
            idle = "-" if row.idle_share is None else f"{100 * row.idle_share:.1f} %"
            cost = "-" if row.driver_ms_per_result is None else f"{row.driver_ms_per_result:.1f}"
            lines.append(
                f"| {row.gpus} x {row.adapters_per_gpu} | {row.trials} | {row.trial_seconds:g} | {idle} "
                f"| {row.results_per_second:.1f} | {cost} | {row.driver_mib:.0f} "
                f"| {100 * row.machine_busy:.0f} % |"
            )
        return "\n".join(lines)


def _in_a_process(arguments: Sequence[str], gpus: int, folder: Path) -> Row:
    """Each run has a driver of its own, so that its memory is its own."""
    out = folder / f"row-{gpus}.json"
    command = [sys.executable, "-m", "tests.benchmarks.scale", *arguments, "--gpus", str(gpus), "--row", str(out)]
    child = subprocess.Popen(command, cwd=ROOT)
    try:
        if child.wait():
            raise RuntimeError(f"the run on {gpus} cards ended with {child.returncode}")
    finally:
        child.terminate()
        child.wait()
    return Row(**json.loads(out.read_text(encoding="utf-8")))


def main() -> int:
    """Runs the studies and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--trial-seconds", type=float, default=20.0, help="how long a trial sleeps, in the mean")
    parser.add_argument("--adapters-per-gpu", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=4, help="Ray nodes that the cards are spread over")
    parser.add_argument("--search", default="random", choices=["random", "tpe", "nsga2"])
    parser.add_argument("--early-stopping", action="store_true", help="pareto_halving")
    parser.add_argument("--json", type=Path, help="rows are added to those that are there")
    parser.add_argument("--row", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # the cluster ends also at a time limit
    with tempfile.TemporaryDirectory(prefix="lora-frontier-scale-") as folder:
        if options.row:
            row = run_one(options, options.gpus[0], Path(folder))
            options.row.write_text(json.dumps(asdict(row)), encoding="utf-8")
            return 0
        shared = [
            "--trials", str(options.trials), "--trial-seconds", str(options.trial_seconds), "--nodes",
            str(options.nodes), "--adapters-per-gpu", str(options.adapters_per_gpu), "--search", options.search,
            *(["--early-stopping"] if options.early_stopping else []),
        ]  # fmt: skip
        table = Table.read(options.json)
        for gpus in options.gpus:
            table.rows.append(_in_a_process(shared, gpus, Path(folder)))
            print(table.text() if gpus == options.gpus[-1] else f"{gpus} cards are done", flush=True)
            if options.json:
                options.json.write_text(json.dumps(table.document(), indent=1) + "\n", encoding="utf-8")
    return 0 if not any(row.lost or row.twice for row in table.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
