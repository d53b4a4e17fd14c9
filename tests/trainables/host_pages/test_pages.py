"""Host memory for blocks: at its exact size, within what is left, locked until cards are done with it."""

from __future__ import annotations

import mmap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trainables.host_pages import pages
from trainables.host_pages.pages import HostPages, available_bytes, locked_block

CARD = torch.device("cuda", 0)
LONG_ROW = 40_000 * 4096 * 2  # bytes of a layer's input


class Runtime:
    """Notes what CUDA is asked for, in order; locks nothing."""

    def __init__(self, refuses: bool = False) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.locked: dict[int, int] = {}
        self._refuses = refuses

    def register(self, begin: int, nbytes: int, flags: int) -> int:
        if self._refuses:
            return 2
        self.locked[begin] = nbytes
        return 0

    def unregister(self, begin: int) -> None:
        self.asked.append(("unlock", begin))
        self.locked.pop(begin)

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> Runtime:
        own = SimpleNamespace(cudaHostRegister=self.register, cudaHostUnregister=self.unregister)
        monkeypatch.setattr(torch.cuda, "cudart", lambda: own)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda card: self.asked.append(("wait", card)))
        monkeypatch.setattr(pages, "_forget_error", lambda card: self.asked.append(("forget", card)))
        return self


@pytest.mark.parametrize("nbytes", [0, 1, 5000, 3 * 2**21])
def test_reserved_memory_has_pages_of_its_own(nbytes: int) -> None:
    block = HostPages(nbytes).block
    assert (len(block), block.dtype) == (nbytes, torch.uint8)
    assert block.data_ptr() % mmap.PAGESIZE == 0
    block.fill_(7)
    assert int(block.long().sum()) == 7 * nbytes


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What files' pages take of it may be had; without a limit the machine's memory counts."""
    monkeypatch.setattr(pages, "CONTROL_GROUP", tmp_path)
    free = available_bytes()
    for name, content in (("max", "7000"), ("current", "5000"), ("stat", "anon 3000\ninactive_file 1500\nshmem 5\n")):
        (tmp_path / f"memory.{name}").write_text(content)
    assert available_bytes() == 3500
    with pytest.raises(MemoryError, match=r"0\.00 GiB are left"):
        locked_block(3501, [CARD])
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes() == pytest.approx(free, rel=0.5)


def test_pages_are_unlocked_with_their_last_view_and_after_all_that_cards_were_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whole pages, from their begin; a view by itself keeps them, as a copy's source or target would."""
    runtime, cards = Runtime().stand_in(monkeypatch), [CARD, torch.device("cuda", 1)]
    block = locked_block(mmap.PAGESIZE + 1, cards)
    begin = block.data_ptr()
    assert len(block) == mmap.PAGESIZE + 1
    assert runtime.locked == {begin: 2 * mmap.PAGESIZE}
    part = block[4:8].detach().view(torch.float32)
    del block
    assert runtime.asked == []
    part.fill_(3.0)
    del part
    assert runtime.asked == [("wait", cards[0]), ("wait", cards[1]), ("unlock", begin)]
    assert runtime.locked == {}


def test_a_card_that_failed_has_its_pages_unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(card: torch.device) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    runtime = Runtime().stand_in(monkeypatch)
    monkeypatch.setattr(torch.cuda, "synchronize", fails)
    block, seen = locked_block(8, [CARD]), []
    monkeypatch.setattr("sys.unraisablehook", lambda found: seen.append(found.exc_type))
    del block
    assert (runtime.locked, seen) == ({}, [RuntimeError])


def test_pages_that_may_not_be_locked_are_refused_and_their_error_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else torch would raise it after the next kernel that it launches."""
    runtime = Runtime(refuses=True).stand_in(monkeypatch)
    with pytest.raises(MemoryError, match="driver refuses to lock their pages, by error 2"):
        locked_block(8, [CARD])
    assert runtime.asked == [("forget", CARD)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a card")
def test_a_card_takes_them_for_page_locked_and_goes_on_after_a_refusal() -> None:
    block = locked_block(LONG_ROW, [CARD])
    assert block.is_pinned()
    assert len(block) == LONG_ROW
    again = HostPages(8)
    again.lock([CARD])
    with pytest.raises(MemoryError, match="driver refuses"):
        again.lock([CARD])
    assert float(torch.ones(3, device=CARD).sum()) == 3.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a card")
def test_a_block_that_goes_while_its_copy_is_under_way_is_copied_whole() -> None:
    target = torch.zeros(LONG_ROW, dtype=torch.uint8, device=CARD)
    for number in range(1, 4):
        block = locked_block(LONG_ROW, [CARD]).fill_(number)
        target.copy_(block, non_blocking=True)
        del block
        assert (int(target.min()), int(target.max())) == (number, number)
