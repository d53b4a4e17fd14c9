"""Runs a study under faults: its driver's process, its directory, and the records that were seen on the way."""

from __future__ import annotations

import json
import resource
import signal
import time
from pathlib import Path

import psutil

from tests.test_whole_study import is_ours, processes_of, start, trains_now

END_SECONDS = 180.0
ROUND_SECONDS = 1200.0


class DisturbedStudy:
    """One study: its directory, its driver, and what stood in its results at any time."""

    def __init__(self, directory: Path, *command: str) -> None:
        self.directory = directory
        self.results = directory / "results.jsonl"
        self._command = command
        self.seen: dict[str, str] = {}
        self.said = ""
        self.until = time.monotonic() + ROUND_SECONDS
        self.driver = start(*command)

    @property
    def runs(self) -> bool:
        """Whether its driver runs. Raises TimeoutError where the study does not come to an end."""
        if time.monotonic() > self.until:
            self.end_driver(signal.SIGKILL)
            raise TimeoutError(f"a study did not end; it lies in {self.directory}")
        return self.driver.poll() is None

    @property
    def trains(self) -> bool:
        """Whether one of its trials trains."""
        return self.runs and trains_now(self.driver, self.directory)

    @property
    def ended(self) -> int:
        """How many trials have a record."""
        return len(whole_lines(self.results))

    def note_records(self) -> None:
        """Remembers what stands in the results: it must not change any more."""
        for line in whole_lines(self.results):
            self.seen.setdefault(json.loads(line)["trial_id"], line)

    def end_driver(self, number: signal.Signals | None = None) -> int:
        """Waits until the driver has ended, by a signal or by itself, and what it owned too; returns its exit code."""
        ours = []
        if self.driver.poll() is None:
            ours = [child for child in psutil.Process(self.driver.pid).children(recursive=True) if is_ours(child)]
            if number is not None:
                self.driver.send_signal(number)
        self.said, _ = self.driver.communicate(timeout=END_SECONDS)
        psutil.wait_procs(ours, timeout=60)  # Ray's own agents take their time
        self.note_records()
        return self.driver.returncode

    def resume(self) -> None:
        """Continues the study with the command for it: `resume`, or `confirm` once more."""
        confirms = self._command[0] == "confirm"
        self.driver = start(*(self._command if confirms else ("resume", str(self.directory))))

    def move(self, place: Path) -> None:
        """Takes the directory elsewhere; nothing drives it."""
        self.directory.rename(place)
        self.directory, self.results = place, place / "results.jsonl"

    def fill_disk(self, name: str = "") -> bool:
        """Has the driver, or a process of it with that title, find no room for anything more; whether there is one."""
        found = processes_of(self.driver, name)[:1] if name else [psutil.Process(self.driver.pid)]
        for process in found:
            process.rlimit(psutil.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        return bool(found)

    def kill_process(self, name: str) -> bool:
        """Kills a process of the driver by its title; whether there is one."""
        found = processes_of(self.driver, name)[:1]
        for process in found:
            process.kill()
        return bool(found)


def whole_lines(file: Path) -> list[str]:
    """The lines of a results file that are JSON."""
    found = []
    for line in file.read_bytes().split(b"\n") if file.is_file() else []:
        try:
            if isinstance(json.loads(line), dict):
                found.append(line.decode())
        except ValueError:
            continue
    return found
