"""Studies in an object store; a folder under a `file://` URL stands for it, through the same pyarrow file systems."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from study.cli.main import main
from study.cluster.object_store import Mirror, fetch, stored_checkpoint
from study.config.study_config import ConfigError, load_study
from study.errors import StoreError
from study.records.store import ResultsStore
from study.run.directory import here, staging_folder
from study.run.lifecycle import reopen
from tests.support.made_up_studies import make_record, write_study_file
from trainables.actors.lora_trial import _read_state


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study directory, with what is copied and what is not."""
    folder = tmp_path / "here" / "made-up-1"
    (folder / "adapters" / "t1").mkdir(parents=True)
    (folder / "adapters" / "t1" / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "tune" / "fp32-1" / "t1").mkdir(parents=True)
    (folder / "tune" / "fp32-1" / "t1" / "result.json").write_text("{}")
    (folder / "tune" / "stopped-1" / "t1" / "checkpoint_000000").mkdir(parents=True)
    (folder / "tune" / "stopped-1" / "t1" / "checkpoint_000000" / "training.safetensors").write_bytes(b"state")
    (folder / ".lock").write_text("")
    (folder / "study.yaml").write_text("name: made-up\n")
    return folder


def url_of(tmp_path: Path) -> str:
    return (tmp_path / "store" / "made-up-1").as_uri()


def test_results_appear_in_the_store_while_the_study_runs(tmp_path: Path, study: Path) -> None:
    url = url_of(tmp_path)
    there = tmp_path / "store" / "made-up-1"
    with Mirror(study, url, seconds=0.05), ResultsStore(study) as store:
        for number in range(3):
            store.append(make_record(f"t{number}"))
            deadline = time.monotonic() + 20
            while not (there / "results.jsonl").exists() or len(ResultsStore(there).records()) <= number:
                assert time.monotonic() < deadline, "the record did not reach the store"
                time.sleep(0.02)
    assert (there / "adapters" / "t1" / "adapter_model.safetensors").read_bytes() == b"weights"
    assert not (there / ".lock").exists()
    assert not (there / "tune" / "fp32-1").exists()  # Tune copies its own


def test_the_end_is_copied_and_what_is_not_kept_goes(tmp_path: Path, study: Path) -> None:
    url = url_of(tmp_path)
    with Mirror(study, url, seconds=600):
        (study / "report.html").write_text("the end")
        (study / "adapters" / "t1" / "adapter_model.safetensors").unlink()
    there = tmp_path / "store" / "made-up-1"
    assert (there / "report.html").read_text() == "the end"
    assert not (there / "adapters" / "t1" / "adapter_model.safetensors").exists()


def test_adapters_that_a_killed_driver_left_in_the_store_go_when_it_continues(tmp_path: Path, study: Path) -> None:
    (study / "adapters" / "t2").mkdir()
    (study / "adapters" / "t2" / "adapter_model.safetensors").write_bytes(b"of the front")
    (study / "pareto.json").write_text("{}")
    Mirror(study, url_of(tmp_path)).copy()
    shutil.rmtree(study / "adapters" / "t1")  # and killed: the store was not told
    (study / "pareto.json").unlink()
    there = tmp_path / "store" / "made-up-1"
    with Mirror(study, url_of(tmp_path), seconds=600):
        assert not (there / "adapters" / "t1" / "adapter_model.safetensors").exists()
    assert (there / "adapters" / "t2" / "adapter_model.safetensors").read_bytes() == b"of the front"
    assert (there / "pareto.json").exists()  # only adapters are taken out
    assert (there / "tune" / "stopped-1" / "t1" / "checkpoint_000000" / "training.safetensors").exists()


def test_what_somebody_else_took_out_of_the_store_is_no_fault(tmp_path: Path, study: Path) -> None:
    adapter = Path("adapters/t1/adapter_model.safetensors")
    with Mirror(study, url_of(tmp_path), seconds=600):
        (study / adapter).unlink()
        (tmp_path / "store" / "made-up-1" / adapter).unlink()


def test_only_what_has_changed_is_copied(tmp_path: Path, study: Path) -> None:
    mirror = Mirror(study, url_of(tmp_path))
    assert mirror.copy() == 3
    assert mirror.copy() == 0
    (study / "study.yaml").write_text("name: other\n")
    assert mirror.copy() == 1


def test_a_database_is_copied_whole_while_it_is_written(tmp_path: Path, study: Path) -> None:
    with closing(sqlite3.connect(study / "optuna.db")) as writer:
        writer.execute("create table trials (number integer)")
        writer.execute("insert into trials values (1)")
        writer.commit()
        writer.execute("insert into trials values (2)")  # not committed: in the midst of it
        Mirror(study, url_of(tmp_path)).copy()
    with closing(sqlite3.connect(tmp_path / "store" / "made-up-1" / "optuna.db")) as copy:
        assert copy.execute("select number from trials").fetchall() == [(1,)]


def test_a_fetched_study_is_the_same_without_tunes_files(tmp_path: Path, study: Path) -> None:
    with ResultsStore(study) as store:
        store.append(make_record("t1"))
    Mirror(study, url_of(tmp_path)).copy()
    target = tmp_path / "fetched"
    assert main(["fetch", url_of(tmp_path), "--out", str(target)]) == 0
    assert ResultsStore(target).records() == ResultsStore(study).records()
    assert (target / "adapters" / "t1" / "adapter_model.safetensors").read_bytes() == b"weights"
    assert not (target / "tune").exists()


def test_the_newest_checkpoint_in_the_store_counts_and_a_trial_reads_it(tmp_path: Path, study: Path) -> None:
    url = url_of(tmp_path)
    Mirror(study, url).copy()
    assert stored_checkpoint(url, "t2") is None
    found = stored_checkpoint(url, "t1")
    assert found == f"{url}/tune/stopped-1/t1/checkpoint_000000"
    later = tmp_path / "store" / "made-up-1" / "tune" / "fp32-9" / "t1" / "checkpoint_000004"
    later.mkdir(parents=True)
    (later / "training.safetensors").write_bytes(b"later state")
    os.utime(later / "training.safetensors", (time.time() + 60, time.time() + 60))
    found = stored_checkpoint(url, "t1")
    assert found == f"{url}/tune/fp32-9/t1/checkpoint_000004"
    assert _read_state(found) == b"later state"
    assert _read_state(f"{url}/tune/nothing") is None


def test_what_is_not_there_is_said_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing at file://"):
        fetch(url_of(tmp_path), tmp_path / "x")
    with pytest.raises(StoreError, match="credentials"):
        fetch("nothing://bucket/x", tmp_path / "x")
    assert main(["fetch", str(tmp_path / "nowhere")]) == 1


def test_storage_may_be_a_store_and_survives_the_study_file(tmp_path: Path) -> None:
    for url in ("s3://bucket/runs", "gs://bucket/a/b"):
        assert load_study(write_study_file(tmp_path, storage=f"{url}/")).storage == url
    with pytest.raises(ConfigError, match="s3://BUCKET/PREFIX"):
        load_study(write_study_file(tmp_path, storage="http://bucket/runs"))


def test_a_study_in_a_store_continues_from_its_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import datetime

    from study.environment import provenance
    from study.run import lifecycle

    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lifecycle, "check", lambda config, here: None)
    monkeypatch.setattr(provenance, "collect", lambda command, started: {})
    storage = (tmp_path / "store").as_uri()
    begun = lifecycle.begin(load_study(write_study_file(tmp_path, storage=storage)), None, "", datetime(2026, 1, 31))
    assert begun.directory.parent == staging_folder()
    assert begun.url == f"{storage}/made-up-20260131-000000"
    begun.store.append(make_record("t1"))
    Mirror(begun.directory, begun.url).copy()
    begun.store.close()
    begun.store.append(make_record("t2"))  # not copied any more: the driver was killed
    begun.store.close()
    assert len(ResultsStore(here(begun.url)).records()) == 2  # on the same machine nothing is lost
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "another machine"))
    again = reopen(here(begun.url))
    try:
        assert again.url == begun.url
        assert [record.trial_id for record in again.store.records()] == ["t1"]
    finally:
        again.store.close()


@pytest.mark.parametrize("name", ["../escaped", "adapters/../../escaped", "/escaped"])
def test_a_name_that_leads_out_of_the_folder_is_refused_and_nothing_is_written(
    name: str, tmp_path: Path, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store's keys are any text; a folder's cannot be, so the listing is made up."""
    url = url_of(tmp_path)
    with Mirror(study, url, seconds=600):
        pass
    monkeypatch.setattr("study.cluster.object_store._files", lambda system, root, url: ["study.yaml", name])
    target = tmp_path / "fetched"
    with pytest.raises(StoreError, match="must stay in the study's folder"):
        fetch(url, target)
    assert not target.exists()
    assert not (tmp_path / "escaped").exists()
