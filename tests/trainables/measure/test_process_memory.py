"""The peak of the resident set: what it sees, what it leaves out, and that it comes out the same again."""

from __future__ import annotations

import gc
import random
import threading
import time

import pytest
import torch

from trainables.measure import process_memory
from trainables.measure.process_memory import release_free_memory, resident_peak

MIB = 2**20


def empty_peak() -> int:
    for _ in range(2):  # the first gives back what earlier tests have left
        with resident_peak() as peak:
            pass
    return peak[0]


@pytest.mark.parametrize("sampled", [False, True])
def test_it_sees_what_was_there_for_a_moment(sampled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """128 MiB within 4 MiB, by the kernel's high-water mark and, where that cannot be reset, by samples."""
    if sampled:
        monkeypatch.setattr(process_memory, "_reset_high_water_mark", lambda: False)
    before = empty_peak()
    with resident_peak() as peak:
        there = torch.ones(128 * MIB // 4)
        time.sleep(0.2 if sampled else 0.0)  # so long that a sample is taken, on a busy machine too
        del there
    assert peak[0] - before == pytest.approx(128 * MIB, abs=4 * MIB)
    assert empty_peak() == pytest.approx(before, abs=4 * MIB)
    assert before > 64 * MIB  # torch itself


def leave_holes(mebibytes: int, seed: int) -> list[torch.Tensor]:
    """Fills the heap with tensors of many sizes, and frees all but a few: what stays keeps their holes apart."""
    draw, made, held = random.Random(seed), [], 0
    while held < mebibytes * MIB:
        made.append(torch.ones(draw.choice((2**10, 2**13, 2**16, 2**18)) + draw.randrange(64)))
        held += made[-1].nbytes
    return made[::50]


def test_what_was_freed_before_does_not_count() -> None:
    """Within 4 MiB: the tensors that are still there, and not the 256 MiB that were freed around them."""
    before = empty_peak()
    kept = leave_holes(256, seed=0)
    gc.collect()
    assert empty_peak() - before == pytest.approx(sum(tensor.nbytes for tensor in kept), abs=4 * MIB)


def churn() -> None:
    """Much allocation of 1 MiB and more, with at most 48 MiB alive at once."""
    alive = [torch.ones(MIB) for _ in range(12)]
    for number in range(60):
        alive[number % 12] = torch.zeros(0)
        alive[number % 12] = torch.ones(MIB // (1 + number % 3))


def test_the_holes_that_the_heap_happens_to_have_do_not_count() -> None:
    """The same work takes the same peak, within 2 MiB, over heaps with different holes, also on another thread."""
    churn()
    peaks = []

    def measure(seed: int) -> None:
        kept = leave_holes(128, seed)
        before = empty_peak()
        with resident_peak() as peak:
            churn()
        peaks.append(peak[0] - before)
        del kept

    for seed in range(3):
        measure(seed)
    thread = threading.Thread(target=measure, args=(3,))
    thread.start()
    thread.join()
    assert max(peaks) - min(peaks) < 2 * MIB
    assert peaks[0] == pytest.approx(48 * MIB, abs=2 * MIB)


def test_a_failure_within_leaves_the_heap_as_usual() -> None:
    """What the failed block held is free again, and the next peak is right: within 4 MiB."""

    def fail() -> None:
        leave_holes(64, seed=1)
        raise RuntimeError("within")

    before = empty_peak()
    with pytest.raises(RuntimeError, match="within"), resident_peak():
        fail()
    assert empty_peak() == pytest.approx(before, abs=4 * MIB)


def test_another_c_library_gives_an_upper_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_memory, "_glibc", lambda: None)
    with resident_peak() as peak:
        there = torch.ones(64 * MIB // 4)
        del there
    release_free_memory()
    assert peak[0] > 64 * MIB
