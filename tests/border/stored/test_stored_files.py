"""Files of a study's directory that are not what a study writes: refused or passed over, at once and in words."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from study.errors import DONE
from study.progress.live_file import read_live
from study.records.directory_lock import driver_has_died
from study.reporting.live_report import make_server
from study.run.cost import seconds_before
from study.run.lifecycle import reopen
from study.run.resumption.checkpoints import is_whole
from tests.border.hostile import Hostile, bounded, table
from tests.border.stored.test_stored_records import VALUES, directory, good
from tests.support.made_up_studies import make_config, make_record, write_study_file

Make = Callable[[Path], object]
KINDS: dict[str, Make] = {
    "a folder": lambda file: file.mkdir(),
    "a named pipe": lambda file: os.mkfifo(file),
    "a device": lambda file: file.symlink_to("/dev/zero"),
    "a link to nothing": lambda file: file.symlink_to(file.parent / "nothing"),
    "a link to itself": lambda file: file.symlink_to(file),
}


def planted(name: str, make: Make, command: str = "report", *more: str) -> Callable[[Path, Path], list[str]]:
    """A maker of a study's directory in which that file is replaced."""

    def build(folder: Path, model: Path) -> list[str]:
        study = directory(folder / "study")
        (study / name).unlink(missing_ok=True)
        make(study / name)
        return [command, str(study), *more]

    return build


def write(content: str | bytes) -> Make:
    return lambda file: file.write_bytes(content.encode() if isinstance(content, str) else content)


def link_to_own(file: Path) -> None:
    """A good file that lies elsewhere."""
    own = file.parent.parent / "own"
    own.write_text("{}", encoding="utf-8")
    file.symlink_to(own)


READ = ("provenance.json", "cost.json", "timeline.json", "host_seconds.json")
HARMLESS = ("optuna.db", "results.torn", ".owner", ".lock", "live.json", "results.parquet", "tune")
LEAVES = "Remove the file: the report then leaves its section out."


@table(
    *(
        Hostile(f"{name} is {kind}", planted(name, make), (name, LEAVES))
        for name in READ
        for kind, make in KINDS.items()
    ),
    *(
        Hostile(f"{name} holds {what}", planted(name, write(text)), (name, words, LEAVES))
        for name in READ
        for what, text, words in (
            ("a list", "[1]", "must hold a JSON object; it holds list"),
            ("depth", "[" * 10**5, "more than 100 deep"),
            ("no JSON", "{", "must hold JSON"),
            ("bytes", b"\xff\xfe", "UTF-8"),
            ("much", b" " * (17 * 2**20), "at most 16 MiB"),
        )
    ),
    *(Hostile(f"study.yaml is {kind}", planted("study.yaml", make), ("study.yaml",)) for kind, make in KINDS.items()),
    Hostile("study.yaml is large", planted("study.yaml", write(b"#" * 2**21)), ("at most 1 MiB", "Give the directory")),
    Hostile(
        "study.yaml is a bomb",
        planted("study.yaml", write("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
        ))),
        ("must be a study file",),
    ),
    Hostile(
        "a section is no section",
        planted("study.yaml", write(yaml.safe_dump({"name": "x", "dataset": [1]}))),
        ("dataset must hold keys and values; it is [1]",),
    ),
    *(
        Hostile(f"results.jsonl is {kind}", planted("results.jsonl", make), ("results.jsonl must be readable",))
        for kind, make in KINDS.items()
        if kind != "a link to nothing"
    ),
    *(
        Hostile(f"{name} is a folder", planted(name, KINDS["a folder"]), (name, "must be writable; it is a folder"))
        for name in ("report.html", "pareto.json")
    ),
    *(
        Hostile(f"{name} is {kind}, and no matter", planted(name, make), ("report.html",), exit_code=DONE)
        for name in HARMLESS
        for kind, make in KINDS.items()
    ),
    Hostile("links that lead out are read", planted("provenance.json", link_to_own), ("report.html",), exit_code=DONE),
    *(
        Hostile(f"serve on port {port}", planted("x", lambda file: None, "report", f"--serve={port}"), words)
        for port, words in (
            ("-1", ("--serve: must be a whole number from 0 to 65,535, not '-1'",)),
            ("99999", ("--serve: must be a whole number from 0 to 65,535, not '99999'",)),
        )
    ),
    *(
        Hostile(name, lambda folder, model, path=path: ["report", str(folder / path)], (words,))
        for name, path, words in (
            ("no directory", "x/y", "must be a study's directory"),
            ("a long name", "x" * 5000, "DIR: must be a path of at most 4,095 bytes"),
            ("a null byte", "x\0y", "DIR: must hold no NUL character"),
        )
    ),
    Hostile(
        "a file as directory",
        lambda folder, model: ["report", str(write("x")(folder / "study.yaml") and folder / "study.yaml")],
        ("must be a study's directory",),
    ),
    Hostile("figures in a file", planted("f", write("x"), "report", "--figures", "/dev/null"), ("--figures",)),
)  # fmt: skip
def test_other_files_of_a_directory(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


def test_what_is_linked_is_not_written_through(tmp_path: Path) -> None:
    study = directory(tmp_path / "study")
    for name in ("report.html", "pareto.json"):
        link_to_own(study / name) if name == "report.html" else (study / name).symlink_to(tmp_path / "own")
    from analysis.report.page import write_report

    write_report(study)
    assert (tmp_path / "own").read_text() == "{}"
    assert not (study / "report.html").is_symlink()


# -- watch -------------------------------------------------------------------------------------------------------------

LIVE: dict[str, Any] = {
    "number": 3,
    "left": {"nf4": 4},
    "statuses": [{"trial_id": "t009", "stage": "training", "step": 1, "total_steps": 9, "train_loss": 2.5}],
    "configs": {"t009": make_config().to_dict()},
}


def live_shapes() -> Iterator[Any]:
    yield from VALUES
    for key in LIVE:
        for value in VALUES:
            yield {**LIVE, key: value}
            yield {**LIVE, "statuses": [{**LIVE["statuses"][0], "step": value, "stage": value}, value]}
            yield {**LIVE, "configs": {"t009": value}}


def test_a_live_file_of_any_shape_is_read_or_is_none(tmp_path: Path) -> None:
    for shape in live_shapes():
        (tmp_path / "live.json").write_text(json.dumps(shape))
        live = read_live(tmp_path)
        assert live is None or sum(live.left.values()) >= 0
    (tmp_path / "live.json").write_text(json.dumps(LIVE))
    live = read_live(tmp_path)
    assert live is not None
    assert live.statuses["t009"].step == 1


@table(
    *(
        Hostile(f"live.json is {kind}", planted("live.json", make, "watch"), ("is not what a running study writes",),
                exit_code=DONE)
        for kind, make in KINDS.items()
    ),
    *(
        Hostile(f"live.json holds {text[:24]}", planted("live.json", write(text), "watch"),
                ("is not what a running study writes", "It is not running"), exit_code=DONE)
        for text in ("null", "[]", "{}", "{", "[" * 10**5, '{"number": "x", "left": {}, "statuses": [], "configs": {}}',
                     '{"number": 1, "left": [], "statuses": {}, "configs": []}')
    ),
)  # fmt: skip
def test_watch_of_what_no_study_writes(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


# -- the server --------------------------------------------------------------------------------------------------------


def test_the_server_answers_whatever_the_directory_holds(tmp_path: Path) -> None:
    study = directory(tmp_path / "study", json.dumps({**good(3), "trial_id": 3}))
    with make_server(study) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        for name, content in (("provenance.json", "{}"), ("provenance.json", "[" * 10**5), ("study.yaml", "name: [")):
            (study / name).write_text(content)
            with urllib.request.urlopen(address, timeout=30) as answer:
                assert b"</html>" in answer.read()
        server.shutdown()


def test_a_port_in_use_is_said(tmp_path: Path, check: Callable[[Hostile], str]) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = (f"--serve: PORT = {port}: must be a port that is free", "in use", "write 0")
        check(Hostile("taken", planted("x", lambda file: None, "report", f"--serve={port}"), words))


# -- small files, and what `resume` opens ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_small_files_of_any_kind_are_as_good_as_none(tmp_path: Path, kind: str) -> None:
    for name in (".owner", "cost.json", "training.safetensors"):
        KINDS[kind](tmp_path / name)
    with bounded(5, 2**28):
        assert not driver_has_died(tmp_path)
        assert seconds_before(tmp_path / "cost.json") == 0.0
        assert not is_whole(tmp_path / "training.safetensors")


@pytest.mark.parametrize("owner", ["process 99999999999999999999 on x", "process -1 on x", "\0", "process 1 on", ""])
def test_any_owner_is_read(tmp_path: Path, owner: str) -> None:
    (tmp_path / ".owner").write_text(owner)
    assert not driver_has_died(tmp_path)


@pytest.mark.parametrize("value", [v for v in VALUES if v not in (0, 1, 3, 0.5, 1e308, 5e-324, 10**18, 2**70)])
def test_costs_of_any_shape_count_as_nothing_before(tmp_path: Path, value: Any) -> None:
    (tmp_path / "cost.json").write_text(json.dumps({"seconds": value}))
    assert seconds_before(tmp_path / "cost.json") in (0.0, 1.0, -0.0)


def test_resume_sets_aside_what_does_not_hold_and_runs_it_again(
    tmp_path: Path, good_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong record, another trial's configuration, and a foreign trial in the database: each is said once."""
    write_study_file(tmp_path, good_model)
    configs = [make_config("fp32", 2), make_config("fp32", 8), make_config("nf4", 2), make_config("nf4", 8)]
    records = [make_record(f"t{place:03}", one) for place, one in enumerate(configs)]
    (tmp_path / "results.jsonl").write_text("".join(one.to_json() + "\n" for one in records))
    study = reopen(tmp_path)
    assert study.remaining() == {"fp32": 0, "nf4": 0}
    study.store.close()
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    lines[1] = lines[1].replace('"trial_id": "t001"', '"trial_id": 1')
    lines[2] = lines[2].replace('"rank": 2', '"rank": 8')
    (tmp_path / "results.jsonl").write_text("\n".join(lines) + "\n")
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as file:
        file.execute("UPDATE trial_user_attributes SET value_json = '3' WHERE key = 'config' AND trial_id = 4")
        file.commit()
    capsys.readouterr()
    study = reopen(tmp_path)
    said = capsys.readouterr().out
    assert study.remaining() == {"fp32": 1, "nf4": 1}
    assert "2 lines of results.jsonl without a record that counts moved to results.torn" in said
    assert "line 2: trial_id must be text with at least one character; it is 1" in said
    assert "t002 was asked for with another configuration" in said
    assert "1 trial of optuna.db left out" in said
    assert "number 3: its configuration cannot be one" in said
    assert [one.trial_id for one in study.store.records()] == ["t000", "t003"]
    assert (tmp_path / "results.torn").read_text().splitlines()[1::2] == lines[1:3]
    study.store.close()
