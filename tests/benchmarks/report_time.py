"""Times a study's report: the processor time of the whole command, and of its parts.

`python -m tests.benchmarks.report_time [--trials 8 10000] [--repeats 5] [--json OUT]` makes a study of so many trials
and runs `python -m study report` on it, each time beside `python -c "import torch"`: where machines differ, their ratio
compares. The first report of a machine also makes the page's JavaScript, and is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from study.output import aligned
from tests.benchmarks.support.report_study import write_report_study
from tests.support.places import ROOT

TORCH = [sys.executable, "-W", "ignore", "-c", "import torch"]
PARTS = [sys.executable, "-m", "tests.benchmarks.report_time", "--parts-of"]
LEAST_SECONDS = 0.01  # of a part that is shown


@dataclass(frozen=True)
class ReportTime:
    """What the report of a study took, in seconds of processor time; medians of its repetitions."""

    trials: int
    first_seconds: float  # with nothing in the user's cache
    seconds: float
    torch_seconds: float  # of `import torch`, run in turns with the report
    parts_seconds: dict[str, float]

    @property
    def ratio(self) -> float:
        """The report's time over that of importing torch."""
        return self.seconds / self.torch_seconds


def report_time(directory: Path, trials: int, repeats: int) -> ReportTime:
    """Makes a study in the directory, and times its report in processes of their own."""
    report = [sys.executable, "-m", "study", "report", str(write_report_study(directory / "study", trials))]
    own = {**os.environ, "LORA_FRONTIER_CACHE": str(directory / "cache"), "OMP_NUM_THREADS": "1"}
    first = _processor_seconds(report, own)
    turns = [(_processor_seconds(report, own), _processor_seconds(TORCH, own)) for _ in range(repeats)]
    whole, torch = (statistics.median(times) for times in zip(*turns, strict=True))
    told = subprocess.run([*PARTS, report[-1]], env=own, cwd=ROOT, capture_output=True, text=True, check=True)
    return ReportTime(trials, first, whole, torch, json.loads(told.stdout))


def _processor_seconds(command: Sequence[str], environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def parts(directory: Path) -> dict[str, float]:
    """Returns the seconds of processor time of each part of a report, in this process, which has imported none of it.

    Parts that the whole report takes once, such as the front, count here in each part that asks for them.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "imports"):
        from analysis.figures.every import FIGURES
        from analysis.load import load_study
        from analysis.report.page import report_page
        from analysis.tables.every import TABLES
    with _timed(seconds, "records"):
        study = load_study(directory)
    with _timed(seconds, "whole page"):
        report_page(study)
    for kind, makers in (("figure", FIGURES), ("table", TABLES)):
        for name, make in makers.items():
            with _timed(seconds, f"{kind}: {name}"):
                make(study)
    return seconds


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.process_time()
    yield
    seconds[name] = time.process_time() - start


def text_of(found: Sequence[ReportTime]) -> str:
    """The times as tables: a row a study, then a row a part."""
    headings = ["trials", "first report", "report", "import torch", "ratio"]
    rows = [
        [f"{one.trials:,}", *(f"{s:.2f} s" for s in (one.first_seconds, one.seconds, one.torch_seconds)),
         f"{one.ratio:.2f}"]
        for one in found
    ]  # fmt: skip
    names = dict.fromkeys(name for one in found for name in one.parts_seconds)
    by_part = [[name, *(f"{one.parts_seconds.get(name, 0.0):.2f} s" for one in found)] for name in names
               if max(one.parts_seconds.get(name, 0.0) for one in found) >= LEAST_SECONDS]  # fmt: skip
    part_headings = ["part, processor time", *(f"{one.trials:,} trials" for one in found)]
    return f"{aligned(headings, rows, left=0)}\n\n{aligned(part_headings, by_part, left=1)}"


def main() -> None:
    """Times the reports that are asked for, prints them, and keeps them where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[8, 10_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.parts_of:
        print(json.dumps(parts(options.parts_of)))
        return
    found = []
    for trials in options.trials:
        with tempfile.TemporaryDirectory(prefix="lora-frontier-report-") as folder:
            found.append(report_time(Path(folder), trials, options.repeats))
    print(text_of(found))
    if options.json:
        about = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
        document = {"about": about, "reports": [asdict(one) for one in found]}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
