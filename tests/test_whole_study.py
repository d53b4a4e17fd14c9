"""Whole studies, as a user runs them: `python -m study run` over a tiny model, with processes killed on the way.

Perplexities of a disturbed study equal the undisturbed ones' to 1e-6 relative: fp32 on a CPU, one adapter a step.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from study.progress.live_file import read_live
from study.records.timeline.file import read_timeline
from study.records.timeline.milestones import milestones
from tests.support.made_up_studies import save_tiny_model, write_study_file
from tests.support.places import ROOT

RUN_SECONDS = 420  # a bound, many times what a run takes
SAME = 1e-6
MEASURED = (
    "perplexity", "base_perplexity", "accuracy", "test_perplexity", "peak_memory_bytes", "train_tokens_per_second",
    "generated_tokens_per_second", "seconds_per_epoch", "wall_seconds",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def study_file(folder: Path, model: Path, **changes: Any) -> Path:
    training = {
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "evaluations": 4,
        "gradient_checkpointing": False,
    }
    training |= {"epochs": 100, "max_steps": changes.pop("max_steps", 12)}
    return write_study_file(folder, model, training=training, **changes)


def start(*arguments: str, own_group: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "study", *arguments]
    environment = {**os.environ, "LORA_FRONTIER_TRACEBACK": "1", "RAY_ADDRESS": "local"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=own_group,
    )  # fmt: skip


def run(*arguments: str) -> str:
    process = start(*arguments)
    output, _ = process.communicate(timeout=RUN_SECONDS)
    assert process.returncode == 0, output
    return output


def records(directory: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in (directory / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {line["trial_id"]: line for line in lines}
    assert len(found) == len(lines), "a trial was recorded twice"
    return found


def perplexities(directory: Path) -> dict[str, float]:
    return {name: record["measurements"]["perplexity"] for name, record in records(directory).items()}


def processes_of(driver: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    """Ray's workers under a driver, by what their title holds."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if name in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s for {what}")


@pytest.mark.usefixtures("own_cache")
def test_the_quickstart_on_a_tiny_model(tmp_path: Path, model: Path) -> None:
    study = yaml.safe_load((ROOT / "study/studies/quickstart.yaml").read_text(encoding="utf-8"))
    study |= {"base_model": {"path": str(model)}, "space": str(ROOT / "search_spaces/quick.yaml")}
    study["dataset"] |= {"max_tokens": 128, "train_examples": 24, "eval_examples": 4, "test_examples": 4}
    study["training"] |= {"max_steps": 6}
    study["generation"] |= {"max_new_tokens": 4}
    study["hardware"] = {"gpu": "cpu"}
    file, out = tmp_path / "quickstart.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(study), encoding="utf-8")
    output = run("run", str(file), "--out", str(out))
    found = records(out)
    assert len(found) == 8
    assert {record["status"] for record in found.values()} == {"complete"}
    for record in found.values():
        measured = record["measurements"]
        for name in MEASURED:
            assert measured[name] is not None, name
        assert measured["train_steps"] == 6
        predicted = record["predictions"]["peak_memory_bytes"]
        assert predicted == pytest.approx(measured["peak_memory_bytes"], rel=0.15)
        assert record["samples"][0]["prompt"].startswith("Diagnose a patient")
    front = {member["trial_id"] for member in json.loads((out / "pareto.json").read_text(encoding="utf-8"))["front"]}
    assert front <= set(found)
    assert {folder.name for folder in (out / "adapters").iterdir()} == front
    assert all((out / "adapters" / name / "adapter_model.safetensors").exists() for name in front)
    for file in ("report.html", "results.parquet", "optuna.db", "provenance.json", "study.yaml"):
        assert (out / file).stat().st_size > 0
    assert_timeline_is_whole(out)
    assert "The Pareto front of" in output
    assert str(out / "report.html") in output


def assert_timeline_is_whole(out: Path) -> None:
    """Driver, both hosts and trials are in the time line, in the order of a study, and the report shows it."""
    (stages,) = read_timeline(out)
    reached = milestones(stages)
    assert reached.first_line_seconds is not None
    assert reached.first_packed_step_seconds is not None
    assert 0 < reached.first_line_seconds < reached.first_packed_step_seconds < reached.end_seconds < RUN_SECONDS
    assert 0 < reached.at_work_share < 1
    names = {(one.process.split()[0], one.name) for one in stages}
    assert {("driver", "interpreter"), ("driver", "checks"), ("driver", "Ray starts"), ("driver", "report")} <= names
    of_host = ("starting", "imports", "base model", "data", "measuring", "training", "evaluating", "sampling")
    assert {("host", name) for name in of_host} | {("trial", "joining")} <= names
    assert len({one.process for one in stages if one.process.startswith("host ")}) == 2  # one for each precision
    assert "went into training and evaluating" in (out / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Path, dict[str, float]]:
    """A study file, and what it comes to when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    hardware = {"gpu": "cpu", "max_adapters_per_gpu": 1}
    file = study_file(folder, model, max_steps=240, hardware=hardware, space=SPACE, adapters="complete")
    run("run", str(file), "--out", str(folder / "out"))
    return file, perplexities(folder / "out")


SPACE = {"precision": "fp32", "rank": {"choice": [2, 8]}, "target_modules": "q_v", "learning_rate": 1.0e-3}


def test_a_killed_host_and_a_killed_trial_cost_no_trial(tmp_path: Path, undisturbed: tuple[Path, dict]) -> None:
    """Its layers wait in host memory, those of the undisturbed study do not. Tolerance: none."""
    file, expected = undisturbed
    out = tmp_path / "out"
    changes = ("--set", "hardware.base_in_host_memory=always", "--set", "training.gradient_checkpointing=true")
    driver = start("run", str(file), "--out", str(out), *changes)
    host = wait_for(lambda: trains_now(driver, out) and processes_of(driver, "BaseModelHost"), "a host that trains")[0]
    host.kill()
    wait_for(lambda: [p for p in processes_of(driver, "BaseModelHost") if p.pid != host.pid], "another host")
    wait_for(lambda: trains_now(driver, out), "a trial at work")
    processes_of(driver, "LoraTrial")[0].kill()
    output, _ = driver.communicate(timeout=RUN_SECONDS)
    assert driver.returncode == 0, output
    assert perplexities(out) == expected
    assert {one["device"]["offload"]["layers"] for one in records(out).values()} == {2}


def test_early_stopping_ends_trials_at_a_rung_and_their_records_say_so(tmp_path: Path, model: Path) -> None:
    """One trial after another, as drawn; of each two of one footprint, the one that learns nothing is dominated."""
    rates = {"choice": [3.0e-3, 1.0e-9]}
    stopping = {"algorithm": "pareto_halving", "rungs": [0.5], "keep_fraction": 0.01, "strata": 1}
    changes = {"space": {**SPACE, "learning_rate": rates}, "early_stopping": {**stopping, "stratum_fraction": 0.01}}
    hardware = {"gpu": "cpu", "max_adapters_per_gpu": 1}
    file = study_file(tmp_path, model, max_steps=16, hardware=hardware, adapters="complete", **changes)
    output = run("run", str(file), "--out", str(tmp_path / "out"))
    found = records(tmp_path / "out")
    stopped = {name for name, record in found.items() if record["status"] == "stopped"}
    assert {record["status"] for record in found.values()} == {"complete", "stopped"}
    assert {found[name]["config"]["learning_rate"] for name in stopped} == {1.0e-9}
    assert len(stopped) == 2
    for name in stopped:
        record = found[name]
        assert (record["reason"], record["adapter"]) == ("dominated at step 8 of 16", None)
        assert [point["step"] for point in record["curve"]] == [4, 8]
        assert record["measurements"]["train_steps"] == 8
        assert record["measurements"]["perplexity"] == record["curve"][-1]["perplexity"]
        assert record["measurements"]["peak_memory_bytes"] > 0
    front = {one["trial_id"] for one in json.loads((tmp_path / "out/pareto.json").read_text(encoding="utf-8"))["front"]}
    assert front
    assert not front & stopped
    assert {folder.name for folder in (tmp_path / "out/adapters").iterdir()} == set(found) - stopped
    assert "stopped" in output


def trains_now(driver: subprocess.Popen[str], out: Path) -> bool:
    """Whether a trial has taken a step and its host is at work on the next: not loading, nor measuring it alone."""
    at_work = processes_of(driver, "LoraTrial.train") and processes_of(driver, "BaseModelHost.advance")
    live = read_live(out) if at_work else None
    return live is not None and any(one.stage == "training" and one.step for one in live.statuses.values())


def test_a_killed_driver_leaves_no_orphan_and_resume_continues(tmp_path: Path, undisturbed: tuple[Path, dict]) -> None:
    file, expected = undisturbed
    out = tmp_path / "out"
    driver = start("run", str(file), "--out", str(out))
    wait_for(lambda: trains_now(driver, out), "a trial at work")
    children = psutil.Process(driver.pid).children(recursive=True)
    ours = [process for process in children if is_ours(process)]  # what holds memory or a card; Ray's agents do not
    assert len(ours) >= 3  # keeper, host, trial
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=60)
    _, alive = psutil.wait_procs(ours, timeout=60)
    assert all(gone(process) for process in alive), "they outlived their driver"
    before = perplexities(out) if (out / "results.jsonl").exists() else {}
    run("resume", str(out))
    assert perplexities(out) == pytest.approx(expected, rel=SAME)
    assert before.items() <= perplexities(out).items()  # what was finished was not run again
    assert "already" not in run("report", str(out))


def test_a_sigterm_to_every_process_still_keeps_the_states(tmp_path: Path, model: Path) -> None:
    """As `timeout`, systemd and batch systems send it: Ray's own processes get it too."""
    file, out = study_file(tmp_path, model, max_steps=5000), tmp_path / "out"
    driver = start("run", str(file), "--out", str(out), own_group=True)
    wait_for(lambda: trains_now(driver, out), "a trial at work")
    children = psutil.Process(driver.pid).children(recursive=True)
    os.killpg(driver.pid, signal.SIGTERM)
    output, _ = driver.communicate(timeout=RUN_SECONDS)
    assert driver.returncode == 1, output
    assert "Interrupted; 0 trials ended and are kept. Continue: python -m study resume" in output
    assert list(out.glob("tune/stopped-*/t*/checkpoint_*/training.safetensors"))
    assert "training" in {one.name for run in read_timeline(out) for one in run}
    _, alive = psutil.wait_procs(children, timeout=60)
    assert all(gone(process) for process in alive), "they outlived their driver"


def test_changed_data_are_refused_and_accepted_begin_what_was_at_work_anew(tmp_path: Path, model: Path) -> None:
    file, out = study_file(tmp_path, model, max_steps=3000, space={**SPACE, "rank": 2}), tmp_path / "out"
    driver = start("run", str(file), "--out", str(out))
    wait_for(lambda: trains_now(driver, out), "a trial at work")
    driver.send_signal(signal.SIGTERM)
    driver.communicate(timeout=RUN_SECONDS)
    assert list(out.glob("tune/stopped-*/t000/checkpoint_*/training.safetensors"))
    data = tmp_path / "rows.jsonl"
    data.write_text(data.read_text().replace("even", "odd"))
    refused = start("resume", str(out))
    said, _ = refused.communicate(timeout=RUN_SECONDS)
    assert refused.returncode == 2, said
    assert "must give the rows that the study began with" in said
    accepted = run("resume", str(out), "--accept-changed-data")
    assert "t000: its newest checkpoint is not continued, which differs in dataset.fingerprint." in accepted
    (record,) = records(out).values()
    basis = json.loads((out / "basis.json").read_text(encoding="utf-8"))
    assert (record["status"], len(record["curve"])) == ("complete", 4)
    assert record["dataset"]["fingerprint"] == basis["changes"][0]["dataset.fingerprint"]["now"]


def test_a_disk_that_is_full_for_an_adapter_stops_the_study_and_fails_no_trial(tmp_path: Path, model: Path) -> None:
    file, out = study_file(tmp_path, model, max_steps=400, space={**SPACE, "rank": 2}), tmp_path / "out"
    driver = start("run", str(file), "--out", str(out))
    (keeper,) = wait_for(lambda: trains_now(driver, out) and processes_of(driver, "HostKeeper"), "a trial at work")
    keeper.rlimit(psutil.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    said, _ = driver.communicate(timeout=RUN_SECONDS)
    assert driver.returncode == 1, said
    assert f"{out / 'adapters/t000'} must be writable" in said
    assert f"continue: python -m study resume {out}" in said
    assert not (out / "results.jsonl").exists()
    run("resume", str(out))
    (record,) = records(out).values()
    assert (record["status"], record["adapter"]) == ("complete", "adapters/t000")
    assert (out / "adapters/t000/adapter_model.safetensors").stat().st_size > 0


def is_ours(process: psutil.Process) -> bool:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return any(name in title for name in ("BaseModelHost", "LoraTrial", "HostKeeper"))


def gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
