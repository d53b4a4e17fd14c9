"""Environments in which no study can run: said before anything is made, in seconds, with the variable and remedy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from study.cluster import ray_address, ray_probe
from study.errors import DONE
from tests.border.hostile import Hostile, table
from tests.support.border.listeners import (
    DASHBOARD,
    HANGING_UP,
    OTHER_GRPC,
    SETTINGS,
    SILENT,
    Listener,
    free_port,
)
from tests.support.made_up_studies import write_study_file

REPLIES = {"a dashboard": DASHBOARD, "another gRPC": OTHER_GRPC, "ends": HANGING_UP, "silent": SILENT, "half": SETTINGS}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every row's variables are its own; probes wait shortly."""
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(ray_probe, "REPLY_SECONDS", 0.2)
    monkeypatch.setattr(ray_address, "_responded", set())
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def runs_with(command: str = "run", **variables: str | None) -> Callable[[Path, Path], list[str]]:
    """Returns a maker that sets variables (None: unsets; `{}` stands for the folder) and runs a good study."""

    def make(folder: Path, model: Path) -> list[str]:
        (folder / "file").write_text("x")
        study = write_study_file(folder, model)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value.replace("{}", str(folder))
        out = ["--out", str(folder / "out")] if command == "run" else []
        return [command, str(study), *out]

    return make


def row(name: str, *words: str, command: str = "run", **variables: str | None) -> Hostile:
    return Hostile(name, runs_with(command, **variables), words)


NO_HEAD = "must be the address of a Ray cluster's head that responds"
ALONE = "unset it to run on this machine alone"


@table(
    row("Ray's client", "ray:// addresses do not run a study", "submit STUDY.yaml", ALONE, RAY_ADDRESS="ray://h:10001"),
    row("the dashboard", "RAY_API_SERVER_ADDRESS=http://h:8265", ALONE, RAY_ADDRESS="http://h:8265"),
    row("a password", 'RAY_ADDRESS: "ray://***@h:1"', ALONE, RAY_ADDRESS="ray://u:sEcret12345@h:1"),
    row("auto without a cluster", "none responds", "ray start --head", RAY_ADDRESS="auto", RAY_TMPDIR="{}"),
    row("no port", "HOST:PORT", ALONE, RAY_ADDRESS="head"),
    row("port 0", "HOST:PORT", ALONE, RAY_ADDRESS="head:0"),
    row("port 99999", "HOST:PORT", ALONE, RAY_ADDRESS="head:99999"),
    row("a path", "HOST:PORT", ALONE, RAY_ADDRESS="/tmp/ray"),
    row("5000 letters", "HOST:PORT", ALONE, RAY_ADDRESS="x" * 5000),
    row("no such host", NO_HEAD, "cannot be resolved", RAY_ADDRESS="no-such-host.invalid:6379"),
    row("nothing listens", NO_HEAD, "nothing listens there", RAY_ADDRESS=f"127.0.0.1:{free_port()}"),
    row("sockets too long", "bytes shorter", "RAY_TMPDIR to a folder of a shorter path", RAY_TMPDIR=f"/{'x' * 90}"),
    row("sockets of TMPDIR", "TMPDIR", "bytes shorter", RAY_TMPDIR=None, TMPDIR=f"/{'x' * 90}"),
    row("no temporary folder", "RAY_TMPDIR", "no such file or directory", RAY_TMPDIR="/nowhere"),
    row("a device as folder", "RAY_TMPDIR", "not a directory", RAY_TMPDIR="/dev/null"),
    row("a relative folder", "RAY_TMPDIR", "it is no absolute path", RAY_TMPDIR="tmp"),
    row("an empty folder name", "RAY_TMPDIR", "it is no absolute path", RAY_TMPDIR=""),
    row("a folder that cannot be written", "RAY_TMPDIR", "for temporary files;", RAY_TMPDIR="/proc"),
    row("cards of letters", "must name cards, each once", "unset it to use all", CUDA_VISIBLE_DEVICES="abc"),
    row("cards with spaces", "must name cards", "0,1", CUDA_VISIBLE_DEVICES="0, 1"),
    row("a card twice", "each once", CUDA_VISIBLE_DEVICES="0,0"),
    row("threads of letters", "OMP_NUM_THREADS", "number of threads from 1", OMP_NUM_THREADS="many"),
    row("no threads", "number of threads from 1", OMP_NUM_THREADS="0"),
    row("fewer threads than none", "MKL_NUM_THREADS", "number of threads", MKL_NUM_THREADS="-1"),
    row("a file as HF_HOME", "HF_HOME", "must be a folder", HF_HOME="{}/file"),
    row("below a file", "must be a folder", "file is none", HF_HUB_CACHE="{}/file/hub"),
    row("a file as cache", "LORA_FRONTIER_CACHE", "must be a folder", LORA_FRONTIER_CACHE="{}/file"),
    row("a file as home", "HOME", "must be a folder", HOME="{}/file"),
    row("a proxy without host", "http_proxy", "a proxy's address", http_proxy="http://"),
    row("a proxy's port", "HTTPS_PROXY", "a proxy's address", HTTPS_PROXY="http://proxy:port"),
    row("a proxy's password", "https_proxy", "a proxy's address", https_proxy="http://u:sEcret12345@proxy:port"),
    row("Ray's threshold", "from 0 to 1", "unset it", RAY_memory_usage_threshold="95"),
    row("Ray's milliseconds", "must be a number", RAY_memory_monitor_refresh_ms="soon"),
    row("Ray's NaN", "must be a number", RAY_gcs_server_port_wait_time_s="nan"),
    row("two at once", "CUDA_VISIBLE_DEVICES: ", "RAY_ADDRESS: ", CUDA_VISIBLE_DEVICES="x", RAY_ADDRESS="ray://h:1"),
)
def test_a_run_is_refused_before_its_directory_is_made(
    hostile: Hostile, check: Callable[[Hostile], str], tmp_path: Path
) -> None:
    said = check(hostile)
    assert not (tmp_path / "input" / "out").exists()
    assert "sEcret12345" not in said


@pytest.mark.parametrize("what", REPLIES)
def test_what_listens_at_the_address_is_no_head(
    what: str, check: Callable[[Hostile], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Listener(REPLIES[what]) as listener:
        check(row(what, NO_HEAD, "what listens there", RAY_ADDRESS=listener.address))


@table(
    row("no home", "trials       4", command="plan", HOME=None),
    row("a home that is not there", "trials       4", command="plan", HOME="/nowhere"),
    row("the C locale", "trials       4", command="plan", LANG="C", LC_ALL="C"),
    row("a locale that is not there", "trials       4", command="plan", LANG="xx_YY.UTF-8", LC_ALL="xx_YY.UTF-8"),
    row("a stale address", "trials       4", command="plan", RAY_ADDRESS="ray://h:1"),
    row("a temporary folder too long", "trials       4", command="plan", TMPDIR=f"/{'x' * 90}"),
    row("an unknown time zone", "trials       4", command="plan", TZ="Nowhere/Nothing"),
    row("no columns", "trials       4", command="plan", COLUMNS="0"),
    row("columns of letters", "trials       4", command="plan", COLUMNS="wide"),
)
def test_a_plan_needs_none_of_it(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    from dataclasses import replace

    check(replace(hostile, exit_code=DONE))
