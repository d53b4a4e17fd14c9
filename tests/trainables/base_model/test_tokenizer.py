"""A base model's tokenizer: which BOS and EOS it is given, from which file, and what is refused. Exact."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainables.base_folders import config_folder
from tests.support.trainables.real_tokenizers import trained
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.tokenizer import load_tokenizer
from trainables.settings import BaseModelSettings

NAMES = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    trained("metaspace").save_pretrained(folder)
    return folder


def folder_of(
    path: Path, saved: Path, config: dict[str, Any], named: dict[str, Any] | None, generation: Any = None
) -> Path:
    """A model's folder with these ids in `config.json`; `named` is `tokenizer_config.json` (None: there is none)."""
    config_folder(path, **config)
    shutil.copy(saved / "tokenizer.json", path)
    for name, values in (("tokenizer_config.json", named), ("generation_config.json", generation)):
        if values is not None:
            (path / name).write_text(json.dumps(values))
    return path


def ids_of(folder: Path) -> tuple[int | None, int | None]:
    tokenizer = load_tokenizer(BaseModelSettings(str(folder)))
    return tokenizer.bos_token_id, tokenizer.eos_token_id


BOTH = {"bos_token_id": 1, "eos_token_id": 2}


@pytest.mark.parametrize(
    ("config", "named", "generation", "expected"),
    [
        (BOTH, None, None, (1, 2)),  # a tokenizer.json alone
        (BOTH, {}, None, (1, 2)),
        (BOTH, NAMES, None, (1, 2)),
        ({"bos_token_id": 5, "eos_token_id": 6}, NAMES, {"eos_token_id": 7}, (1, 2)),  # the tokenizer's own word wins
        ({"bos_token_id": 1, "eos_token_id": 5}, {"eos_token": "</s>"}, None, (None, 2)),  # Qwen: rows without BOS
        (BOTH, {"bos_token": None}, None, (None, 2)),
        (BOTH, {"add_bos_token": False}, None, (None, 2)),
        (BOTH, {"bos_token": "<s>"}, None, (1, 2)),
        ({}, {}, {"bos_token_id": 1, "eos_token_id": [2, 5]}, (1, 2)),
        ({"eos_token_id": 2}, {}, {"eos_token_id": 5}, (None, 2)),  # config.json before generation_config.json
        ({"eos_token_id": [9999, -1, 2, 5]}, {}, None, (None, 2)),  # the first in the vocabulary
        ({"eos_token_id": None}, {}, {"eos_token_id": None}, (None, None)),
        ({"eos_token_id": []}, {}, {}, (None, None)),
        ({}, {}, [], (None, None)),
        ({}, {"bos_token": "<s>"}, None, (1, None)),
    ],
)
def test_bos_and_eos(
    config: dict[str, Any],
    named: dict[str, Any] | None,
    generation: Any,
    expected: tuple[int | None, int | None],
    tmp_path: Path,
    saved: Path,
) -> None:
    assert ids_of(folder_of(tmp_path / "model", saved, config, named, generation)) == expected


@pytest.mark.parametrize("value", [-1, 9999, 2**40, 2.0, "2", True, [9999, -1], {"id": 2}])
def test_an_id_outside_the_vocabulary_is_refused_with_its_place(value: Any, tmp_path: Path, saved: Path) -> None:
    folder = folder_of(tmp_path / "model", saved, {"eos_token_id": value}, {})
    rule = r"config\.json: eos_token_id must be an id of the tokenizer's vocabulary, .* Correct it, or set it to"
    with pytest.raises(BaseModelError, match=rule):
        ids_of(folder)
    assert ids_of(folder_of(tmp_path / "named", saved, {"eos_token_id": 9999}, NAMES)) == (1, 2)  # not asked for


def test_a_token_that_its_file_calls_ordinary_is_special_where_it_ends_texts(tmp_path: Path, saved: Path) -> None:
    folder = folder_of(tmp_path / "model", saved, {}, NAMES)
    values = json.loads((folder / "tokenizer.json").read_text())
    for token in values["added_tokens"]:
        token |= {"special": False, "normalized": True}
    (folder / "tokenizer.json").write_text(json.dumps(values))
    tokenizer = load_tokenizer(BaseModelSettings(str(folder)))
    assert not {1, 2} & set(tokenizer.encode(["a <s> b </s>"])[0].ids)
    assert {1, 2} <= set(tokenizer.encode(["a <s> b </s>"], markup=True)[0].ids)


def test_its_post_processor_adds_nothing(tmp_path: Path, saved: Path) -> None:
    folder = folder_of(tmp_path / "model", saved, {}, NAMES)
    values = json.loads((folder / "tokenizer.json").read_text())
    template = [{"SpecialToken": {"id": "<s>", "type_id": 0}}] * 3 + [{"Sequence": {"id": "A", "type_id": 0}}]
    special = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    values["post_processor"] = {
        "type": "TemplateProcessing", "single": template, "pair": [*template, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": special,
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(values))
    assert load_tokenizer(BaseModelSettings(str(folder))).backend.num_special_tokens_to_add(is_pair=False) == 0


def test_interrupts_stay_interrupts(tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainables.base_model import tokenizer as module

    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_from_folder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ids_of(folder_of(tmp_path / "model", saved, {}, NAMES))
