"""What is said and refused of tokens before Ray starts: what rows begin and end with, markup, and the embedding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from study.config.study_config import ConfigError, load_study
from study.plan.preflight import Preflight, check
from tests.support.made_up_studies import save_tiny_model, write_study_file


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))
    return save_tiny_model(tmp_path / "model")


def checked(folder: Path, model: Path, rows: list[tuple[str, str]] | None = None, **changes: Any) -> Preflight:
    file = write_study_file(folder, model, **changes)
    if rows:
        lines = [json.dumps({"prompt": prompt, "completion": answer}) for prompt, answer in rows]
        (folder / "rows.jsonl").write_text("\n".join(lines))
    return check(load_study(file))


def change(file: Path, **changes: Any) -> None:
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, **changes}))


def add_tokens(model: Path, *texts: str) -> None:
    """Tokens that the tokenizer has and the embedding, of 97 rows, has not."""
    more = [
        {"id": 97 + number, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for number, text in enumerate(texts)
    ]  # fmt: skip
    values = json.loads((model / "tokenizer.json").read_text())
    change(model / "tokenizer.json", added_tokens=[*values["added_tokens"], *more])


CHAT = [(f"<|user|>Is {number} even?<|assistant|>", " yes") for number in range(40)]


def test_what_rows_begin_and_end_with_is_said(tmp_path: Path, model: Path) -> None:
    assert checked(tmp_path, model).tokens == "rows begin with <s> and end with </s>"


def test_without_eos_tuned_models_will_not_stop(tmp_path: Path, model: Path) -> None:
    change(model / "tokenizer_config.json", eos_token=None)
    change(model / "config.json", eos_token_id=None)
    change(model / "generation_config.json", eos_token_id=None)
    said = checked(tmp_path, model).tokens
    assert said.startswith("rows begin with <s> and have no token for their end: tuned models will not stop")


def test_ids_beyond_the_embedding_are_refused_with_row_token_and_remedy(tmp_path: Path, model: Path) -> None:
    add_tokens(model, "<|user|>", "<|assistant|>")
    with pytest.raises(ConfigError) as caught:
        checked(tmp_path, model, CHAT)
    (fault,) = caught.value.faults
    for word in (
        "under 97",
        "row rows.jsonl:",
        "'<|assistant|>', id 98",
        "with such ids: 36",
        "resize_token_embeddings",
    ):
        assert word in str(fault)


def test_tokens_that_nothing_uses_may_lie_beyond(tmp_path: Path, model: Path) -> None:
    add_tokens(model, "<|user|>", "<pad>")
    change(model / "tokenizer_config.json", pad_token="<pad>")
    assert "begin with <s>" in checked(tmp_path, model).tokens
    text = checked(tmp_path, model, CHAT, dataset=own(special_tokens="text")).tokens
    assert "36 rows hold special tokens’ texts" in text
    assert "read as text (dataset.special_tokens: markup" in text


def own(**changes: Any) -> dict[str, Any]:
    return {"name": "mine", "train_file": "rows.jsonl", "train_examples": 32, "max_tokens": 64, **changes}


def test_generation_prompts_are_looked_at_too(tmp_path: Path, model: Path) -> None:
    add_tokens(model, "<|user|>")
    generation = {"prompts": ["Is it?", "<|user|>Is it?"]}
    checked(tmp_path, model, generation=generation)
    with pytest.raises(ConfigError, match=r"generation\.prompts\.1 holds '<\|user\|>', id 97 \(.* with such ids: 1\)"):
        checked(tmp_path, model, generation=generation, dataset=own(special_tokens="markup"))
