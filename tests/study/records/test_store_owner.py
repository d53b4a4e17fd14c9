"""One driver at a time owns a results store, and what it says where the disk takes no more."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from study.errors import StoreError
from study.records.layout import RESULTS_FILE
from study.records.store import ResultsStore
from tests.support.places import ROOT
from tests.support.stored_records import ids, record


def refused_with(directory: Path) -> StoreError:
    with pytest.raises(StoreError) as caught:
        ResultsStore(directory).own()
    return caught.value


def in_another_process(code: str, directory: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-c",
        f"import sys; from study.records.store import *; store = ResultsStore(sys.argv[1]); {code}",
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, str(directory)], cwd=ROOT, text=True, **pipes)


def test_a_second_driver_is_told_who_the_first_is_and_what_to_do(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as store:
        store.own()  # again, which changes nothing
        error = refused_with(tmp_path)
        with pytest.raises(StoreError):
            ResultsStore(tmp_path).append(record("t000"))
        assert store.append(record("t000"))
    assert "one driver at a time" in error.rule
    assert str(tmp_path) in error.value
    assert f"process {os.getpid()} on " in error.value
    assert f"python -m study resume {tmp_path}" in error.remedy
    assert str(error) == f"{error.rule}; {error.value}. {error.remedy}"
    ResultsStore(tmp_path).own()  # free again


def test_a_killed_driver_leaves_the_directory_free(tmp_path: Path) -> None:
    other = in_another_process("store.own(); print('owned', flush=True); sys.stdin.read()", tmp_path)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "owned\n", other.communicate()[1]
        assert f"process {other.pid} on " in refused_with(tmp_path).value
    finally:
        other.kill()
        other.communicate()
    ResultsStore(tmp_path).own()


def test_a_copy_of_an_owner_reads_and_does_not_own(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as store:
        store.append(record("t000"))
        copy = pickle.loads(pickle.dumps(store))
        assert copy.records() == store.records()
        with pytest.raises(StoreError):
            copy.own()


def test_no_directory_is_an_error_and_none_is_made(tmp_path: Path) -> None:
    assert "must exist" in refused_with(tmp_path / "none").rule
    assert not (tmp_path / "none").exists()


FULL_DISK = """
import resource
from tests.support.stored_records import record
store.append(record('t000'))
size = (store.directory / 'results.jsonl').stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))  # half a record fits
try:
    store.append(record('t001'))
except StoreError as error:
    print(error, flush=True)
assert (store.directory / 'results.jsonl').stat().st_size == size
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert store.append(record('t001'))
"""


def test_a_full_disk_is_said_and_leaves_no_half_record(tmp_path: Path) -> None:
    other = in_another_process(f"exec({FULL_DISK!r})", tmp_path)
    said, errors = other.communicate(timeout=60)
    assert other.returncode == 0, errors
    assert said.startswith(f"{tmp_path / RESULTS_FILE} must be writable; ")
    assert "Free some space" in said
    assert f"python -m study resume {tmp_path}" in said
    assert ids(tmp_path) == ["t000", "t001"]


@pytest.mark.parametrize("use", [ResultsStore.records, ResultsStore.own])
def test_results_that_cannot_be_read_are_an_error(tmp_path: Path, use: Callable[[ResultsStore], object]) -> None:
    (tmp_path / RESULTS_FILE).mkdir()
    with pytest.raises(StoreError, match=f"{RESULTS_FILE} must be readable"):
        use(ResultsStore(tmp_path))
