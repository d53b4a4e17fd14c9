"""What transformers converts is kept, and read the next time without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.trainables.real_tokenizers import trained
from tests.support.trainables.same_tokenizers import agree
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.tokenization.conversion import converted


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))


def test_it_is_converted_once_for_the_same_files(tmp_path: Path) -> None:
    file, loads = tmp_path / "vocab.json", []
    file.write_text("{}")

    def load() -> Any:
        loads.append(1)
        return trained("metaspace")

    for _ in range(2):
        agree(converted([file], load), trained("metaspace"))
    assert len(loads) == 1
    file.write_text('{"a": 1}')
    converted([file], load)
    assert len(loads) == 2


def test_it_is_converted_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "file" / "cache"))
    agree(converted([tmp_path / "file"], lambda: trained("prepend")), trained("prepend"))


def test_a_tokenizer_that_knows_no_offsets_is_refused(tmp_path: Path) -> None:
    class SlowTokenizer:
        is_fast = False

    with pytest.raises(BaseModelError, match=r"must be a fast one \(tokenizer\.json\).* it is a SlowTokenizer\. Save"):
        converted([], SlowTokenizer)
