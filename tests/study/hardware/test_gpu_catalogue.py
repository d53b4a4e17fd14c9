"""The catalogue's data, and finding a card in it by whatever name it goes."""

import pytest

from study.hardware.gpu_catalogue import (
    UnknownGpuError,
    card_of,
    catalogue,
    find_gpu,
)
from study.hardware.machine import Card
from study.hardware.targets import card_here, smallest_here

MIB = 2**20
WANTED = ("t4", "l4", "a10g", "v100", "a100-40", "a100-80", "h100", "h200", "rtx3090", "rtx4090")


def test_the_catalogue_has_the_cards_that_people_rent():
    assert tuple(catalogue()) == WANTED
    for card in catalogue().values():
        assert 10 * 2**30 < card.memory_bytes < 150 * 2**30
        assert (7, 0) <= card.compute_capability <= (12, 0)
        assert 2e11 < card.bandwidth_bytes_per_second < 6e12
        assert 3e13 < card.tensor_flops < 2e15
        assert 0 < card.product_efficiency <= 1
        assert 0 < card.bandwidth_efficiency <= 1
        assert 0 < card.price_per_hour < 10
        assert 1e10 < card.bus_bytes_per_second < 6e10
        assert 16 * 2**30 <= card.host_memory_bytes < 300 * 2**30
        assert len(card.price_as_of) == 7
        assert card.price_source
        assert card.name in card.summary


@pytest.mark.parametrize(
    ("name", "memory_mib", "key"),
    [
        ("Tesla T4", 15360, "t4"), ("NVIDIA L4", 23034, "l4"), ("NVIDIA A10G", 23028, "a10g"),
        ("Tesla V100-SXM2-16GB", 16384, "v100"), ("NVIDIA A100-PCIE-40GB", 40960, "a100-40"),
        ("NVIDIA A100-SXM4-80GB", 81920, "a100-80"), ("NVIDIA A100 80GB PCIe", 81920, "a100-80"),
        ("NVIDIA H100 80GB HBM3", 81559, "h100"), ("NVIDIA H200", 143771, "h200"),
        ("NVIDIA GeForce RTX 3090", 24576, "rtx3090"), ("NVIDIA GeForce RTX 4090", 24564, "rtx4090"),
    ],
)  # fmt: skip
def test_a_card_is_known_by_nvmls_name_and_memory(name, memory_mib, key):
    assert card_of(Card(name, "GPU-0", memory_mib * MIB, None)).key == key
    assert find_gpu(key).key == key


@pytest.mark.parametrize(
    ("name", "memory_mib"),
    [("NVIDIA A10", 23028), ("NVIDIA L40S", 46068), ("Tesla V100-SXM2-32GB", 32768), ("NVIDIA T400", 4096),
     ("NVIDIA H100 NVL", 95830)],
)  # fmt: skip
def test_another_card_is_known_by_what_nvml_tells(name, memory_mib):
    found = Card(name, "GPU-0", memory_mib * MIB, "8.6")
    assert card_of(found) is None
    card = card_here(found)
    assert (card.name, card.compute_capability, card.tensor_flops) == (name, (8, 6), None)
    assert 0.9 < card.memory_bytes / (memory_mib * MIB) < 1


def test_a_machines_cards_count_as_its_smallest():
    cards = (Card("NVIDIA A100-SXM4-80GB", "GPU-0", 81920 * MIB, "8.0"), Card("Tesla T4", "GPU-1", 15360 * MIB, "7.5"))
    assert smallest_here(cards) == (find_gpu("t4"), 2)
    assert smallest_here(()) is None


@pytest.mark.parametrize("name", ["T4", "tesla t4", "NVIDIA T4", " t4 "])
def test_a_user_may_write_it_in_other_ways(name):
    assert find_gpu(name).key == "t4"


@pytest.mark.parametrize("name", ["t5", "", "a100", "4"])
def test_an_unknown_card_is_refused_with_those_that_are_known(name):
    with pytest.raises(UnknownGpuError, match=r"must be one of t4, l4, .*rtx4090, auto or cpu"):
        find_gpu(name)
