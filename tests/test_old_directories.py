"""Study directories of an older version: they open, say the same numbers, and continue where they were interrupted.

What the older version said of them, and what it made of the interrupted one, lies beside them in `said.json`; how both
were made says tests/support/old_directory/README.md. Numbers computed from its records agree to 1e-9 relative.
Those that are trained here agree to 1e-5: on the older version's processor they are the same, and without its vector
instructions they differ by 1e-7.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.load import load_study
from study.cli.main import main
from study.progress.live_file import read_live
from tests.support.old_directory.make import BUDGET, PAUSE_SECONDS, PLACE, kept_state, summary_of
from tests.support.places import ROOT

OLD = ROOT / "tests" / "support" / "old_directory"
SAID: dict[str, Any] = json.loads((OLD / "said.json").read_text(encoding="utf-8"))
REWRITTEN = ("study.yaml", "results.jsonl", "provenance.json", "adapter_config.json")
RUN_SECONDS = 420  # a bound, many times what it takes
COMPUTED, TRAINED = 1e-9, 1e-5
NUMBER = re.compile(r"\d[\d,]*\.?\d*")

Say = Callable[..., str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The older version's directories, as if they had been made in this folder of this machine."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(OLD / "directories.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    for file in (file for name in REWRITTEN for file in folder.rglob(name)):
        times = file.stat().st_atime_ns, file.stat().st_mtime_ns  # by which a study has come to its end
        file.write_text(file.read_text(encoding="utf-8").replace(str(PLACE), str(folder)), encoding="utf-8")
        os.utime(file, ns=times)
    (folder / "interrupted/.owner").write_text(f"process {_ended_process()} on {socket.gethostname()}")
    return folder


def _ended_process() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


@pytest.fixture
def say(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Runs a command over these directories, which must do what it is asked; returns what it says."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(place / "cache"))

    def run(*words: str | Path) -> str:
        code = main(list(map(str, words)))
        shown = capsys.readouterr()
        assert code == 0, shown.err
        return shown.out

    return run


def numbers(text: str) -> list[str]:
    """The numbers that a text says, those of paths and commands left out."""
    return NUMBER.findall(" ".join(word for word in text.split() if "/" not in word))


def assert_says_the_same(new: str, old: str) -> None:
    """Every number of the older version's words is in the new ones; the words may be others."""
    found = numbers(new)
    for one in numbers(old):
        assert one in found, f"{one} is missing of {numbers(old)}:\n{new}"
        found.remove(one)


def assert_holds(new: Any, old: Any) -> None:
    """Everything that the older version's JSON holds is in the new one; numbers may differ by rounding alone."""
    if isinstance(old, dict):
        for key in old:
            assert_holds(new[key], old[key])
    elif isinstance(old, list):
        assert len(new) == len(old)
        for one, other in zip(new, old, strict=True):
            assert_holds(one, other)
    else:
        assert new == (pytest.approx(old, rel=COMPUTED) if isinstance(old, float) else old)


def records(directory: Path) -> dict[str, dict[str, Any]]:
    """A study's records by trial, none of which may be there twice."""
    lines = [json.loads(line) for line in (directory / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {line["trial_id"]: line for line in lines}
    assert len(found) == len(lines), "a trial was recorded twice"
    return found


@pytest.mark.parametrize("name", ["finished", "interrupted"])
def test_report_gives_the_same_front(place: Path, say: Say, name: str) -> None:
    kept = (place / name / "results.jsonl").read_bytes()
    say("report", place / name)
    front = json.loads((place / name / "pareto.json").read_text(encoding="utf-8"))
    assert_holds(front, SAID["fronts"][name])
    page = (place / name / "report.html").read_text(encoding="utf-8")
    assert all(trial_id in page for trial_id in records(place / name))
    assert (place / name / "results.jsonl").read_bytes() == kept


def test_report_gives_the_same_configuration_for_a_budget(place: Path, say: Say) -> None:
    assert_says_the_same(say("report", place / "finished", "--budget", BUDGET), SAID["texts"]["budget"])


def test_compare_says_the_same(place: Path, say: Say) -> None:
    finished = place / "finished"
    text = say("compare", finished, finished / "confirm", place / "interrupted")
    assert_says_the_same(text, SAID["texts"]["compare"])


def test_status_and_watch_say_how_an_interrupted_study_stands(place: Path, say: Say) -> None:
    assert_says_the_same(say("status", place / "interrupted"), SAID["texts"]["status"])
    text = say("watch", place / "interrupted")
    assert_says_the_same(text, SAID["texts"]["watch"])
    assert f"study resume {place / 'interrupted'}" in text


def test_watch_says_why_trials_of_a_finished_study_gave_no_result(place: Path, say: Say) -> None:
    kept = records(place / "finished").values()
    assert {record["status"] for record in kept} == {"complete", "infeasible", "failed"}
    text = say("watch", place / "finished")
    assert_says_the_same(text, SAID["texts"]["watch finished"])
    assert all(record["reason"] in text for record in kept if record["status"] != "complete")


def test_an_infeasible_trial_says_at_which_moment_as_the_older_phase_did(place: Path) -> None:
    kept = records(place / "finished")
    read = {record.trial_id: record for record in load_study(place / "finished").records}
    for name, record in kept.items():
        if record["status"] == "infeasible":
            old, new = record["infeasible"], read[name].infeasible
            assert new == {**{key: old[key] for key in old if key != "phase"}, "moment": old["phase"]}


def test_the_live_file_that_a_killed_driver_left_behind_is_read(place: Path) -> None:
    kept = json.loads((place / "interrupted/live.json").read_text(encoding="utf-8"))
    live = read_live(place / "interrupted")
    assert live is not None
    assert live.left == kept["left"]
    assert [one.trial_id for one in live.statuses.values()] == [one["trial_id"] for one in kept["statuses"]]


def test_export_takes_the_adapter_and_merges_it(place: Path, say: Say, tmp_path: Path) -> None:
    name = SAID["fronts"]["finished"]["front"][0]["trial_id"]
    say("export", place / "finished", name, "--to", tmp_path / "adapter")
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        kept = place / "finished" / "adapters" / name / file
        assert (tmp_path / "adapter" / file).read_bytes() == kept.read_bytes()
    say("export", place / "finished", name, "--merge", "--to", tmp_path / "merged")  # holds the base to its hash
    assert (tmp_path / "merged" / "model.safetensors").stat().st_size > 0


def test_confirm_concludes_the_same(place: Path, say: Say) -> None:
    text = say("confirm", place / "finished")
    found = json.loads((place / "finished/confirm/confirm.json").read_text(encoding="utf-8"))
    assert_holds(found, SAID["confirmed"])
    assert_says_the_same(text, SAID["texts"]["confirm"])


def test_resume_leaves_a_finished_study_as_it_is(place: Path, say: Say) -> None:
    kept = (place / "finished/results.jsonl").read_bytes()
    say("resume", place / "finished")
    assert (place / "finished/results.jsonl").read_bytes() == kept


@pytest.fixture(scope="module")
def resumed(place: Path) -> Iterator[Path]:
    """A copy of the interrupted study, resumed by this version."""
    directory = place / "resumed" / "interrupted"
    shutil.copytree(place / "interrupted", directory)
    environment = {**os.environ, "RAY_ADDRESS": "local", "LORA_FRONTIER_CACHE": str(place / "cache")}
    command = [sys.executable, "-m", "study", "resume", str(directory)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_what_it_depends_on_is_known_from_its_records_and_noted_from_then_on(resumed: Path) -> None:
    noted = json.loads((resumed / "basis.json").read_text(encoding="utf-8"))
    assert (noted["since"], noted["changes"]) == ("records", [])
    for record in records(resumed).values():
        if record["dataset"]:
            assert noted["states"]["dataset.fingerprint"] == record["dataset"]["fingerprint"]
            assert noted["states"]["base_model.sha256"] == record["base_model"]["sha256"]


def test_no_trial_is_lost_or_recorded_twice(resumed: Path) -> None:
    assert sorted(records(resumed)) == sorted(SAID["resumed"]["records"])


def test_what_had_ended_keeps_its_records(place: Path, resumed: Path) -> None:
    kept = (place / "interrupted/results.jsonl").read_bytes()
    assert 0 < len(kept) < len((resumed / "results.jsonl").read_bytes())
    assert (resumed / "results.jsonl").read_bytes().startswith(kept)


def test_the_resumed_trials_come_to_the_same(resumed: Path) -> None:
    """Also those that the search asked for only now: it proposes what the older version proposed."""
    for name, record in records(resumed).items():
        found, expected = summary_of(record), SAID["resumed"]["records"][name]
        measured = [key for key, value in expected.items() if isinstance(value, float)]
        assert [found.pop(key) for key in measured] == pytest.approx([expected[key] for key in measured], rel=TRAINED)
        rate = pytest.approx(expected["config"]["learning_rate"], rel=TRAINED)
        left = {key: value for key, value in expected.items() if key not in measured}
        assert found == {**left, "config": {**expected["config"], "learning_rate": rate}}


def test_the_interrupted_trial_continues_from_the_state_that_was_kept(place: Path, resumed: Path) -> None:
    """Its time at work counts on from that state's, which is longer than this test."""
    (state,) = (place / "interrupted/tune").glob("stopped-*/t*/checkpoint_*/training.safetensors")
    kept = kept_state(state.parents[1])
    trial_id = state.parents[1].name
    assert trial_id not in records(place / "interrupted")
    record = records(resumed)[trial_id]
    assert record["measurements"]["wall_seconds"] > kept["extra"]["wall_seconds"] > PAUSE_SECONDS
    points = [point for point in record["curve"] if point["step"] <= kept["step"]]
    assert points == kept["extra"]["curve"]


def test_the_search_continues_in_its_database(place: Path, resumed: Path) -> None:
    before, after = _asked_for(place / "interrupted"), _asked_for(resumed)
    assert after[: len(before)] == before
    assert sorted(trial_id for trial_id, _ in after) == sorted(records(resumed))


def _asked_for(directory: Path) -> list[tuple[str, str]]:
    """Names and configurations of the trials in the database, in the order in which they were asked for."""
    query = """SELECT a.value_json, b.value_json FROM trials
        JOIN trial_user_attributes a ON a.trial_id = trials.trial_id AND a.key = 'trial_id'
        JOIN trial_user_attributes b ON b.trial_id = trials.trial_id AND b.key = 'config' ORDER BY number"""
    with sqlite3.connect(directory / "optuna.db") as database:
        return [(json.loads(name), config) for name, config in database.execute(query)]


def test_the_front_of_the_resumed_study_is_the_same(resumed: Path) -> None:
    found = json.loads((resumed / "pareto.json").read_text(encoding="utf-8"))
    expected = SAID["resumed"]["front"]
    assert [one["trial_id"] for one in found["front"]] == [one["trial_id"] for one in expected["front"]]
    assert found["hypervolume"] == pytest.approx(expected["hypervolume"], rel=TRAINED)
