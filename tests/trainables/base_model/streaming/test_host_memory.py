"""Host memory for blocks: pages of their own, within what is left, locked for cards while the block lives."""

from __future__ import annotations

import mmap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.streaming import host_memory
from trainables.base_model.streaming.host_memory import check_room, reserve


@pytest.mark.parametrize("nbytes", [0, 1, 5000, 3 * 2**21])
def test_reserved_memory_has_pages_of_its_own(nbytes: int) -> None:
    block = reserve(nbytes)
    assert (len(block), block.dtype) == (nbytes, torch.uint8)
    assert block.data_ptr() % mmap.PAGESIZE == 0
    block.fill_(7)
    assert int(block.long().sum()) == 7 * nbytes


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What files' pages take of it may be had; without a limit the machine's memory counts."""
    monkeypatch.setattr(host_memory, "CONTROL_GROUP", tmp_path)
    free = host_memory.available_bytes()
    for name, content in (("max", "7000"), ("current", "5000"), ("stat", "anon 3000\ninactive_file 1500\nshmem 5\n")):
        (tmp_path / f"memory.{name}").write_text(content)
    assert host_memory.available_bytes() == 3500
    check_room(3500)
    with pytest.raises(BaseModelError, match="must fit there"):
        check_room(3501)
    (tmp_path / "memory.max").write_text("max\n")
    assert host_memory.available_bytes() == pytest.approx(free, rel=0.5)


@pytest.mark.parametrize("refused", [False, True])
def test_pages_are_locked_once_and_freed_with_their_block(refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a runtime that notes what it is asked: whole pages, from their begin, and only while the block lives."""
    locked: dict[int, int] = {}

    def register(begin: int, nbytes: int, flags: int) -> int:
        locked[begin] = nbytes
        return 2 * refused

    runtime = SimpleNamespace(cudaHostRegister=register, cudaHostUnregister=locked.pop)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    block = reserve(mmap.PAGESIZE + 1)
    if refused:
        with pytest.raises(BaseModelError, match=r"driver refuses to lock their pages, by error 2\. Free host"):
            host_memory.pin(block)
        return
    host_memory.pin(block)
    assert locked == {block.data_ptr(): 2 * mmap.PAGESIZE}
    del block
    assert locked == {}
