"""What is planned for: the study's cards, this machine's, a cluster's, or a processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from study.hardware.gpu_catalogue import find_gpu
from study.hardware.machine import Card, Cards
from study.hardware.targets import target_here, target_of_cluster
from trainables.settings import HardwareSettings

GIB = 2**30
TWO_T4S = Cards((Card("Tesla T4", None, 15_637_086_208, "7.5"),) * 2)
AUTO, T4, CPU = HardwareSettings(), HardwareSettings(gpu="t4"), HardwareSettings(gpu="cpu")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path))
    monkeypatch.setattr("study.hardware.targets.find_cards", lambda: TWO_T4S)


def test_a_machines_own_cards_are_what_its_study_runs_on() -> None:
    hardware = HardwareSettings(gpu="h100", gpus=1, memory_limit_bytes=8 * GIB)  # named, and another is there
    target = target_of_cluster(hardware, [2.0], (), use_gpu=True, local=True)
    assert target is not None
    assert (target.card, target.count, target.per_node) == (find_gpu("t4"), 1, 2)
    assert target.limit_bytes == 8 * GIB
    assert target.cards_together == 1  # of the two, the study may take one


@pytest.mark.parametrize(
    ("hardware", "kinds", "key"),
    [
        (T4, (), "t4"),
        (AUTO, ("T4",), "t4"),
        (AUTO, ("A100-40G",), "a100-40"),
        (AUTO, ("A10G", "T4"), "t4"),  # what fits the smallest fits all
        (AUTO, ("H100",), "h100"),
        (AUTO, ("T4", "TPU-V4"), None),
        (AUTO, (), None),
    ],
)
def test_a_clusters_cards_are_those_that_the_study_or_ray_names(
    hardware: HardwareSettings, kinds: tuple[str, ...], key: str | None
) -> None:
    target = target_of_cluster(hardware, [0.0, 1.0, 4.0], kinds, use_gpu=True, local=False)
    assert (target.card.key if target and target.card else None) == key
    if target:
        assert (target.count, target.per_node) == (5, 4)


def test_a_study_on_processors_plans_for_this_one() -> None:
    for target in (target_of_cluster(CPU, [2.0], ("T4",), use_gpu=False, local=True), target_here(CPU)):
        assert target is not None
        assert (target.card, target.count) == (None, 1)
        assert target.memory_bytes > 0


def test_this_machines_memory_comes_before_the_catalogues() -> None:
    """Half of it for each of its two cards; a card that is not here is in a usual machine."""
    there, t4 = psutil.virtual_memory().total, find_gpu("t4")
    here = target_here(T4), target_here(AUTO), target_of_cluster(AUTO, [2.0], (), use_gpu=True, local=True)
    assert {one.host_memory_bytes for one in here if one} == {there // 2}
    away = target_here(HardwareSettings(gpu="l4")), target_of_cluster(T4, [2.0], (), use_gpu=True, local=False)
    assert [one.host_memory_bytes for one in away if one] == [find_gpu("l4").host_memory_bytes, t4.host_memory_bytes]


def test_what_may_wait_in_host_memory_leaves_a_reserve() -> None:
    """A T4's usual 16 GiB: 95 % less 4 GiB; nothing of less than that; what is not known is enough."""
    target = target_here(HardwareSettings(gpu="l4"))
    assert target.host_room_bytes == int(0.95 * 16 * GIB) - 4 * GIB
    assert replace(target, host_memory_bytes=4 * GIB).host_room_bytes == 0
    assert replace(target, host_memory_bytes=None).host_room_bytes is None
    assert target_here(CPU).host_room_bytes is None


def test_a_plan_is_for_what_is_named_else_for_what_is_here() -> None:
    named, here = target_here(HardwareSettings(gpu="h200", gpus=3)), target_here(HardwareSettings(gpus=9))
    assert (named.card, named.count, named.per_node) == (find_gpu("h200"), 3, 3)
    assert (here.card, here.count) == (find_gpu("t4"), 2)
    assert target_here(T4).count == 2  # as many as are here
    assert target_here(HardwareSettings(gpu="l4")).count == 1
