"""What a tokenizer may ask for: growth in closed form, time, the size of its files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from trainables.base_model import tokenizer_limits
from trainables.base_model.tokenizer_limits import _growth, check_files, within
from trainables.guarded_files import FileRefusedError


def replace(text: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": text}, "content": content}


@pytest.mark.parametrize(
    ("step", "growth"),
    [
        ({}, 1),
        (replace(" ", "▁"), 1),
        (replace("ab", "x"), 1),
        (replace("ab", "x" * 10), 5),
        ({"type": "Replace", "pattern": {"Regex": "a|"}, "content": "xyz"}, 4),
        ({"type": "Sequence", "normalizers": [replace("a", "a" * 10)] * 3}, 1000),
        ({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "ByteLevel"}]}, 16),
        ({"type": "Prepend", "prepend": "▁"}, 1),
        ({"type": "Prepend", "prepend": "x" * 500}, 500),
        ({"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [replace("a", "aa")] * 2}] * 2}, 16),
    ],
)
def test_growth_is_the_product_of_the_steps(step: Any, growth: float) -> None:
    assert _growth(step) == growth


def test_growth_without_bound_is_still_a_number() -> None:
    assert _growth([replace("a", "a" * 1000)] * 1000) == 1e300


def test_within_returns_raises_and_gives_up() -> None:
    assert within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="had not ended"):
        within(0.05, lambda: time.sleep(2))
    assert time.monotonic() - start < 1.5

    class PanicException(BaseException):
        pass

    def panics() -> None:
        raise PanicException("regex search error")

    with pytest.raises(RuntimeError, match="regex search error"):
        within(5, panics)


def test_added_tokens_are_counted_across_the_parts_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.json").write_text('{"single_word": false}, ' * 50)
    for size in range(1, 60):
        monkeypatch.setattr(tokenizer_limits, "_READ_BYTES", size)
        monkeypatch.setattr(tokenizer_limits, "MOST_ADDED_TOKENS", 50)
        check_files(tmp_path)
        monkeypatch.setattr(tokenizer_limits, "MOST_ADDED_TOKENS", 49)
        with pytest.raises(FileRefusedError, match=r"at most 49 added tokens; .* lists 50"):
            check_files(tmp_path)


def test_a_link_into_nowhere_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "merges.txt").symlink_to(tmp_path / "nothing")
    check_files(tmp_path)
