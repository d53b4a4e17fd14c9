"""Makes the study directories of `directories.tar.xz` with an older version; README.md says which, and how to call it.

Only the older version's commands are used, each in a process of its own, so nothing here changes with this version.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

PLACE = Path("/tmp/old-study")  # stands in every file that holds a path; the test writes its own there
HERE = Path(__file__).resolve().parent
PAUSE_SECONDS = 120  # longer than the test takes: a trial that began anew could not have been at work for so long
STEPS = 300
BUDGET = "0.7GiB"
LEFT_OUT = ("report.html", "tuner.pkl", "experiment_state-*", "search_gen_state-*", "searcher-state-*")
SAVE_MODEL = """
import sys, torch
from pathlib import Path
from tests.made_up_studies import save_tiny_model
from tests.small_models import tiny_llama
tiny_llama(torch.bfloat16).save_pretrained(save_tiny_model(Path(sys.argv[1])))
"""
FAILING = 3.0e-3  # the learning rate of the trial whose hosts are killed until it fails
GRID = {
    "name": "finished",
    "space": {
        "precision": "fp32", "rank": {"choice": [2, 8, 1024]}, "target_modules": "all_linear",
        "learning_rate": {"choice": [1.0e-3, 2.0e-3, FAILING]},
    },
    "objectives": [
        {"metric": "perplexity", "direction": "minimize", "reference": 200.0},
        {"metric": "peak_memory_bytes", "direction": "minimize", "reference": "1 GiB"},
    ],
    "confirm": {"seeds": [101, 102]},
}  # fmt: skip
SEARCH = {
    "name": "interrupted",
    "space": {
        "precision": "fp32", "rank": {"choice": [2, 4, 8]}, "target_modules": "q_v",
        "learning_rate": {"log_float": [1.0e-4, 1.0e-2]},
    },
    "search": {"algorithm": "tpe", "trials": 7, "seed": 3},
    "early_stopping": {"algorithm": "asha", "rungs": [0.5], "keep_fraction": 0.5},
    # Of numbers that are the same wherever they are measured, so that the search goes the same way everywhere.
    "objectives": [
        {"metric": "perplexity", "direction": "minimize", "reference": 200.0},
        {"metric": "trainable_parameters", "direction": "minimize", "reference": 5000},
    ],
}  # fmt: skip


class OldVersion:
    """The commands of a checkout of the older version."""

    def __init__(self, checkout: Path) -> None:
        self._checkout = checkout
        cache = {"LORA_FRONTIER_CACHE": str(PLACE / "cache"), "HF_HUB_OFFLINE": "1"}
        self._environment = {**os.environ, **cache, "RAY_ADDRESS": "local", "COLUMNS": "200"}

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        return self._start([sys.executable, "-m", "study", *map(str, words)])

    def run(self, *words: str | Path) -> str:
        return self._end(self.start(*words))

    def save_model(self, folder: Path) -> None:
        self._end(self._start([sys.executable, "-c", SAVE_MODEL, str(folder)]))

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self._checkout, env=self._environment, start_new_session=True, **pipes)

    def _end(self, process: subprocess.Popen[str]) -> str:
        output, errors = process.communicate(timeout=600)
        if process.returncode:
            raise SystemExit(f"{process.args} ended with {process.returncode}:\n{output}\n{errors}")
        return output


def write_study(**values: Any) -> Path:
    """A study file over 40 made-up rows, which train alone and in fp32, so that numbers are reproducible."""
    for file, numbers in (("rows", range(40)), ("test", range(40, 60))):
        rows = [{"prompt": f"Is {n} even?", "completion": " no" if n % 2 else " yes"} for n in numbers]
        (PLACE / f"{file}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    sizes = {"max_tokens": 64, "train_examples": 24, "eval_examples": 8, "test_examples": 8}
    study = {
        "base_model": {"path": "model"},
        "dataset": {"name": "mine", "train_file": "rows.jsonl", "test_file": "test.jsonl", **sizes},
        "training": {
            "micro_batch_size": 2, "gradient_accumulation_steps": 1, "evaluations": 4, "epochs": 100,
            "gradient_checkpointing": False, "max_steps": STEPS,
        },
        "hardware": {"gpu": "cpu", "max_adapters_per_gpu": 1},
        "generation": {"prompts": ["Is 3 even?"], "max_new_tokens": 4},
        "storage": "storage",
    }  # fmt: skip
    file = PLACE / f"{values['name']}.yaml"
    file.write_text(yaml.safe_dump({**study, **values}), encoding="utf-8")
    return file


def make_finished(old: OldVersion, out: Path) -> None:
    """A study whose trials ended as complete, infeasible and failed, and its front, confirmed."""
    hardware = {"gpu": "cpu", "max_adapters_per_gpu": 1, "memory_limit": "612 MiB"}
    driver = old.start("run", write_study(hardware=hardware, **GRID), "--out", out)
    while driver.poll() is None:
        live = read_live(out)
        at_work = [live["configs"][one["trial_id"]] for one in live["statuses"] if one["phase"] == "training"]
        if any(config["learning_rate"] == FAILING for config in at_work):
            for host in hosts_of(driver):
                host.kill()
        time.sleep(0.05)
    old.run("confirm", out)


def make_interrupted(old: OldVersion, file: Path, out: Path) -> None:
    """A search that was stopped by SIGTERM, continued, and killed before its trial had another checkpoint."""
    driver = old.start("run", file, "--out", out)
    wait_for(lambda: len(records_of(out)) >= 3 and trains(out), driver)
    (host,) = hosts_of(driver)
    host.suspend()
    time.sleep(PAUSE_SECONDS)
    host.resume()
    os.killpg(driver.pid, signal.SIGTERM)
    driver.communicate(timeout=120)
    (stopped,) = out.glob("tune/stopped-*/t*")
    if kept_state(stopped)["extra"]["wall_seconds"] < PAUSE_SECONDS:
        raise SystemExit(f"{stopped.name} began after the pause; remove {PLACE} and try again.")
    driver = old.start("resume", out)
    wait_for(lambda: bool(hosts_of(driver, "BaseModelHost.advance")), driver)  # asked for news of a trial that joined
    started = psutil.Process(driver.pid).children(recursive=True)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate(timeout=60)
    for process in psutil.wait_procs(started, timeout=60)[1]:
        process.kill()
    if stopped.name in records_of(out):
        raise SystemExit(f"{stopped.name} had ended already; remove {PLACE} and try again.")


def read_live(directory: Path) -> dict[str, Any]:
    """What the running study says of its trials."""
    try:
        return dict(json.loads((directory / "live.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {"statuses": [], "configs": {}}


def trains(directory: Path) -> bool:
    """Whether a trial is in training that has no record yet: what is said of trials is up to a second old."""
    at_work = [
        one["trial_id"] for one in read_live(directory)["statuses"] if one["phase"] == "training" and one["step"]
    ]
    return bool(set(at_work) - set(records_of(directory)))


def records_of(directory: Path) -> dict[str, dict[str, Any]]:
    file = directory / "results.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {record["trial_id"]: record for record in map(json.loads, lines)}


def kept_state(trial: Path) -> dict[str, Any]:
    """What the newest checkpoint in a trial's folder says beside its tensors, from the header of its file."""
    *_, file = sorted(trial.glob("checkpoint_*/training.safetensors"))
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(json.loads(header["__metadata__"]["training"]))


def wait_for(condition: Callable[[], bool], driver: subprocess.Popen[str]) -> None:
    while not condition():
        if driver.poll() is not None:
            raise SystemExit(f"The study ended too early: {driver.communicate()}")
        time.sleep(0.02)


def hosts_of(driver: subprocess.Popen[str], doing: str = "BaseModelHost") -> list[psutil.Process]:
    """The processes under a driver that hold base models, as Ray titles them."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if doing in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def what_it_says(old: OldVersion, place: Path) -> dict[str, Any]:
    """What the older version says of copies of the directories, and what it makes of them."""
    finished, interrupted = place / "finished", place / "interrupted"
    texts = {
        "status": old.run("status", interrupted),
        "watch": old.run("watch", interrupted),
        "watch finished": old.run("watch", finished),
        "budget": old.run("report", finished, "--budget", BUDGET),
        "compare": old.run("compare", finished, finished / "confirm", interrupted),
        "confirm": old.run("confirm", finished),
    }
    old.run("report", interrupted)
    fronts = {"finished": read_front(finished), "interrupted": read_front(interrupted)}
    confirmed = json.loads((finished / "confirm/confirm.json").read_text(encoding="utf-8"))
    old.run("resume", interrupted)
    resumed = {"records": summary(interrupted), "front": read_front(interrupted)}
    return {"texts": texts, "fronts": fronts, "confirmed": confirmed, "resumed": resumed}


def read_front(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "pareto.json").read_text(encoding="utf-8")))


def summary(directory: Path) -> dict[str, dict[str, Any]]:
    return {name: summary_of(record) for name, record in sorted(records_of(directory).items())}


def summary_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Of a trial's record what must be the same wherever it is trained."""
    names = ("perplexity", "base_perplexity", "test_perplexity", "train_steps", "trainable_parameters")
    measured = {name: record["measurements"][name] for name in names}
    return {
        "status": record["status"], "reason": record["reason"], "config": record["config"],
        "comparable": record["comparable"]["quality"], **measured,
    }  # fmt: skip


def check_against_undisturbed(old: OldVersion, file: Path, resumed: dict[str, Any]) -> None:
    """Stops where the resumed study is not what it would have been without an interruption."""
    old.run("run", file, "--out", PLACE / "undisturbed")
    for name, record in summary(PLACE / "undisturbed").items():
        for key, value in record.items():
            other = resumed["records"][name][key]
            same = abs(value - other) <= 1e-6 * abs(value) if isinstance(value, float) else value == other
            if not same:
                raise SystemExit(f"{name}: {key} is {value} undisturbed, and {other} resumed")


def tidy(directory: Path) -> None:
    """Takes out what names this machine, and Ray's own files, which `resume` does not read."""
    for pattern in LEFT_OUT:
        for file in directory.rglob(pattern):
            file.unlink()
    owner = directory / ".owner"
    if owner.exists():
        owner.write_text(owner.read_text(encoding="utf-8").replace(socket.gethostname(), "HOST"), encoding="utf-8")
    for file in directory.rglob("provenance.json"):
        facts = json.loads(file.read_text(encoding="utf-8"))
        facts |= {"platform": "Linux", "hardware": {**facts["hardware"], "cpu": "a processor"}, "other_packages": []}
        facts["command"] = re.sub(r"\S*/old-study", str(PLACE), facts["command"])
        file.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def pack(target: Path) -> None:
    def without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(target, "w:xz", preset=9) as archive:
        for name in ("model", "rows.jsonl", "test.jsonl", "finished", "interrupted"):
            archive.add(PLACE / name, name, filter=without_owner)


def main(checkout: Path) -> None:
    PLACE.mkdir()
    old = OldVersion(checkout)
    old.save_model(PLACE / "model")
    make_finished(old, PLACE / "finished")
    file = write_study(**SEARCH)
    make_interrupted(old, file, PLACE / "interrupted")
    shutil.copytree(PLACE / "finished", PLACE / "copies/finished")
    shutil.copytree(PLACE / "interrupted", PLACE / "copies/interrupted")
    said = what_it_says(old, PLACE / "copies")
    check_against_undisturbed(old, file, said["resumed"])
    for name in ("finished", "interrupted"):
        tidy(PLACE / name)
    pack(HERE / "directories.tar.xz")
    (HERE / "said.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
