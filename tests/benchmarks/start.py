"""Times how a study starts: the time line of one on this machine, and what commands cost that start no trial.

    python -m tests.benchmarks.start [--model FOLDER] [--work DIR] [--json OUT]    # 8 trials of SmolLM2-135M on the CPU
    python -m tests.benchmarks.start --device cuda [--work DIR] [--json OUT]       # 16 NF4 trials, Llama-3-8B's shapes

The study is that of `tests.benchmarks.study_makespan`. It runs as its users run it, first with empty caches and then
with filled ones; its stages are read from its own `timeline.json`. Prints them, when it came to what, and the processor
time of `plan` (of the quickstart) and of `report` (of the study) over that of `python -c "import torch"`: medians of
interleaved runs. Without `--work`, all of it is in a folder that is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from study.records.timeline.file import read_timeline
from study.records.timeline.milestones import milestones, start_of, time_by_kind
from tests.benchmarks.study_makespan import CASES, made_llama, smollm2, study_seconds, write_data
from tests.support.places import ROOT
from trainables.timeline import Stage

REPEATS = 3
QUICKSTART = "study/studies/quickstart.yaml"
RUNS = ("caches empty", "caches filled")


def run_study(device: str, model: Path, work: Path) -> dict[str, Any]:
    """Runs the study once; returns its whole seconds, its stages, and what follows from them."""
    seconds, out = study_seconds(CASES[device], device, model, work)
    (run,) = read_timeline(out)
    return {
        "directory": str(out),
        "seconds": seconds,
        "milestones": asdict(milestones(run)),
        "seconds_by_kind": time_by_kind(run),
        "stages": [asdict(one) for one in run],
    }


def processor_seconds(command: Sequence[str]) -> float:
    """Processor time of a whole process of Python and of those that it waited for; NaN where it fails."""
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime if process.returncode == 0 else math.nan


def commands(directory: Path) -> dict[str, list[str]]:
    """The commands whose processor time is compared, by name; the first is what the others are compared with."""
    return {
        "import torch": ["-c", "import torch"],
        "plan": ["-m", "study", "plan", QUICKSTART],
        "report": ["-m", "study", "report", str(directory)],
    }


def interleaved(named: Mapping[str, Sequence[str]], repeats: int) -> dict[str, float]:
    """The median processor time of each command: all once, then all again, so that a busy machine slows all alike."""
    taken: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(repeats):
        for name, command in named.items():
            taken[name].append(processor_seconds(command))
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def lines(stages: Sequence[Stage]) -> list[str]:
    """The time line as a table: stage, process, from, to, and seconds, all from the command on."""
    zero = start_of(stages)
    shown = [f"{'stage':32} {'process':34} {'from':>8} {'to':>8} {'seconds':>8}"]
    for one in stages:
        many = f" (sum of {one.times})" if one.times > 1 else ""
        times = f"{one.began - zero:8.2f} {one.ended - zero:8.2f} {one.seconds:8.2f}"
        shown.append(f"{one.name:32.32} {one.process:34.34} {times}{many}")
    return shown


def summary(name: str, run: Mapping[str, Any]) -> list[str]:
    """When a run came to what, and where its wall time went."""
    reached = run["milestones"]
    kinds = sorted(run["seconds_by_kind"].items(), key=lambda pair: -pair[1])
    return [
        f"{name}: {run['seconds']:.1f} s as a whole process",
        f"  first line                {_seconds(reached['first_line_seconds'])}",
        f"  first packed step         {_seconds(reached['first_packed_step_seconds'])}",
        f"  end of the last stage     {_seconds(reached['end_seconds'])}",
        f"  training and evaluating   {reached['at_work_share']:8.1%} of it",
        *(f"    {kind:38} {seconds:8.2f} s" for kind, seconds in kinds),
    ]


def _seconds(value: float | None) -> str:
    return "   never" if value is None else f"{value:8.2f} s"


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Runs the study with empty and with filled caches, then the commands; prints and returns it all."""
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cache-", dir=work)  # of the study's processes: empty
    case = CASES[options.device]
    write_data(work / "data", case["train"], case["eval"])
    model = options.model or (smollm2(work) if options.device == "cpu" else made_llama(work, options.tokenizer))
    report: dict[str, Any] = {"device": options.device, "cores": os.cpu_count(), "model": str(model), "runs": {}}
    for name in RUNS:
        run = report["runs"][name] = run_study(options.device, model, work)
        print("\n".join(["", *lines([Stage(**one) for one in run["stages"]]), "", *summary(name, run)]), flush=True)
    report["processor_seconds"] = interleaved(commands(Path(run["directory"])), options.repeats)
    print("\n".join(processor_lines(report["processor_seconds"])))
    return report


def processor_lines(seconds: Mapping[str, float]) -> list[str]:
    """The processor time of each command, and how many times that of the first it is; `nan` for one that failed."""
    first, *others = seconds
    ratios = [f"  {name:8} {seconds[name]:6.2f} s, {seconds[name] / seconds[first]:.2f} times that" for name in others]
    return ["", f"processor time of {first}: {seconds[first]:.2f} s", *ratios]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=list(CASES), default="cpu")
    parser.add_argument("--work", type=Path, help="a folder for model, data and results (default: one that is removed)")
    parser.add_argument("--model", type=Path, help="a model's folder, in place of the device's")
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json, for the random model of a card")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of each command whose processor time is taken")
    parser.add_argument("--json", type=Path, metavar="OUT")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lora-frontier-start-") as folder:
        work = (options.work or Path(folder)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        report = measure(options, work)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
