"""The page's JavaScript: what may stand in a script element, made once and then read from the user's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from analysis.report import javascript as module
from analysis.report.javascript import BUNDLE, is_kept, javascript

SCRIPT = 'const end = "</script>", remark = "<!-- ü";'
ESCAPED = 'const end = "<\\/script>", remark = "<\\!-- ü";'


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Puts SCRIPT in the place of the true bundle, over a cache of its own; counts how often it was made."""
    calls: list[None] = []

    def make() -> str:
        calls.append(None)
        return SCRIPT

    monkeypatch.setattr(module.vl_convert, "javascript_bundle", make, raising=False)
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))
    javascript.cache_clear()
    yield lambda: len(calls)
    javascript.cache_clear()


def _again() -> str:
    """What the next process gets."""
    javascript.cache_clear()
    return str(javascript())


def _kept(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "cache").rglob(BUNDLE)
    return file


def test_it_is_made_once_and_then_read_from_the_cache(made: Callable[[], int], tmp_path: Path) -> None:
    assert not is_kept()
    assert [_again() for _ in range(3)] == [ESCAPED] * 3
    assert made() == 1
    assert is_kept()
    assert version("vl-convert-python") in _kept(tmp_path).parent.name


@pytest.mark.parametrize("spoil", [lambda text: text[:-4], lambda text: "alert(1) /*" + text[11:], lambda text: ""])
def test_what_was_torn_or_altered_is_made_anew(
    made: Callable[[], int], tmp_path: Path, spoil: Callable[[str], str]
) -> None:
    _again()
    _kept(tmp_path).write_text(spoil(SCRIPT), encoding="utf-8")
    assert _again() == ESCAPED
    assert made() == 2
    assert _again() == ESCAPED
    assert made() == 2


def test_without_a_place_to_keep_it_it_is_made_each_time(
    made: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "file" / "cache"))
    assert [_again() for _ in range(2)] == [ESCAPED] * 2
    assert made() == 2


def test_a_vl_convert_without_it_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module.vl_convert, "javascript_bundle")
    javascript.cache_clear()
    assert javascript() is None
    assert is_kept()  # there is nothing to be made
    javascript.cache_clear()


def test_nothing_in_the_true_bundle_ends_its_script_element() -> None:
    bundle = javascript()
    assert bundle is not None
    assert len(bundle) > 100_000
    assert "</script" not in bundle
    assert "<!--" not in bundle
