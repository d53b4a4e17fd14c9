"""Study files and space files that hold no study and no space."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.checkout import CHECKOUT
from study.cli.main import main
from study.errors import WRONG_INPUT
from study.strict_yaml import strict_text
from tests.support.study_files import (
    SPACE,
    faults_of,
    write_study,
)

BOMB = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10) if n else 1}]" for n in range(9))
TEXTS: list[tuple[str | bytes, str, str, str]] = [
    ("", "", "must hold the keys of a study", "name: my-study"),
    ("# nothing", "", "must hold the keys of a study", "name: my-study"),
    ("- a\n- b", "", "must hold the keys of a study", "name: my-study"),
    ("just text", "", "must hold the keys of a study", "name: my-study"),
    ("name: a\nname: b", "line 2", "the key `name` must stand only once", "Keep one"),
    ("1: a", "line 1", "a key must be text", "quotes"),
    ("name: !!python/name:os.system x", "line 1", "tag", "without a tag"),
    ("name: !!str x", "line 1", "tag", "without a tag"),
    ("name: a\n---\nname: b", "line 2", "must be one document", "Remove `---`"),
    ("a: &a [*a]", "line 1", "stands for what holds it", "Write the value out"),
    (BOMB, "line 5", "at most 20,000 values", "fewer aliases"),
    ("a: " + "[" * 60 + "]" * 60, "line 1", "nested at most 50 deep", "flatter"),
    ("<<: {a: 1}", "line 1", "merge keys", "Write the keys out"),
    (b"#" * (2**20 + 1), "", "must be at most 1 MiB", "files of their own"),
    (b"name: \xff", "line 1", "must be UTF-8", "Save the file as UTF-8"),
    ("name: a".encode("utf-16"), "line 1", "must be UTF-8", "Save the file as UTF-8"),
    ("name: a\x00", "line 1", "no control characters", "UTF-8"),
    ("name: [a", "line 1", "must be YAML", "brackets"),
    ("name: a\n\tb: c", "line 2", "must be YAML", "indentation"),
    ("name: a: b", "line 1", "must be YAML", "colons"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "key", "rule", "remedy"), TEXTS, ids=[rule for _, _, rule, _ in TEXTS])
def test_what_is_no_study_at_all(
    text: str | bytes, key: str, rule: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    (fault,) = faults_of(file)
    assert (fault.file, fault.key) == (str(file), key)
    assert rule in fault.rule
    assert remedy in fault.remedy
    assert main(["plan", str(file)]) == WRONG_INPUT
    assert capsys.readouterr().err == f"{fault}\n"


@pytest.mark.parametrize("name", ["missing.yaml", ".", "x" * 4000])
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path / name)
    assert fault.rule.startswith("must be a file that")
    assert fault.remedy == "Check its path."


def test_a_space_files_faults_name_the_space_file(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(strict_text({**SPACE, "rank": 0, "rnk": 3}), encoding="utf-8")
    faults = faults_of(write_study(tmp_path, {"space": "space.yaml", "training.epochs": 0}))
    assert [(fault.file, fault.key) for fault in faults] == [
        (str(space), "space.rank"),
        (str(space), "space.rnk"),
        (str(tmp_path / "study.yaml"), "training.epochs"),
    ]


@pytest.mark.parametrize(
    ("text", "key", "rule"),
    [
        ("rank: !!int 8", "line 1", "tag"),
        ("rank: 8\nrank: 8", "line 2", "only once"),
        ("", "space", "must hold the parameters"),
        ("[8]", "space", "must hold the parameters"),
    ],
)
def test_a_space_file_that_is_no_space(text: str, key: str, rule: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(text, encoding="utf-8")
    (fault,) = faults_of(write_study(tmp_path, {"space": "space.yaml"}))
    assert (fault.file, fault.key) == (str(tmp_path / "space.yaml"), key)
    assert rule in fault.rule


@pytest.mark.parametrize("space", [".", "search_spaces", ""])
def test_a_space_that_is_a_folder(space: str, tmp_path: Path) -> None:
    file = write_study(tmp_path, {"space": space})
    (fault,) = faults_of(file)
    assert (fault.file, fault.key, fault.value) == (str(file), "space", space)
    assert fault.rule == f"must be a file that is there; looked for {tmp_path / space} and {CHECKOUT / space}"
