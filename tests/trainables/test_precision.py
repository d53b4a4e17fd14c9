"""What a device computes in, by compute capability and processor flags; no tolerance, all cases are listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.hardware.gpu_catalogue import catalogue, find_gpu
from trainables.precision import Processor, attention_kernel, compute_precision, cpu_multiplies_bf16, refusal

T4, L4, H100 = (Processor(name, capability) for name, capability in (("T4", (7, 5)), ("L4", (8, 9)), ("H100", (9, 0))))
SLOW_CPU, FAST_CPU = Processor.of_cpu(), Processor.of_cpu(multiplies_bf16=True)


@pytest.mark.parametrize(
    ("precision", "device", "computes_in"),
    [
        ("nf4", T4, "fp16"), ("nf4", Processor("A100", (8, 0)), "bf16"), ("nf4", L4, "bf16"), ("nf4", H100, "bf16"),
        ("fp16", H100, "fp16"), ("fp32", H100, "fp32"), ("bf16", T4, "bf16"), ("bf16", L4, "bf16"),
        ("nf4", SLOW_CPU, "fp32"), ("bf16", SLOW_CPU, "fp32"), ("fp32", SLOW_CPU, "fp32"),
        ("nf4", FAST_CPU, "bf16"), ("bf16", FAST_CPU, "bf16"), ("fp32", FAST_CPU, "fp32"),
    ],
)  # fmt: skip
def test_activations_are_computed_in_the_best_that_the_device_has(
    precision: str, device: Processor, computes_in: str
) -> None:
    assert compute_precision(precision, device) == computes_in


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "nf4"])
@pytest.mark.parametrize("device", [T4, L4, H100, SLOW_CPU, FAST_CPU], ids=lambda one: one.name)
@pytest.mark.parametrize("forced", [False, True])
def test_fp16_on_a_cpu_and_emulated_bf16_alone_are_refused(precision: str, device: Processor, forced: bool) -> None:
    refused = (precision == "fp16" and device.capability is None) or (
        precision == "bf16" and device is T4 and not forced
    )
    assert (refusal(precision, device, forced) is not None) == refused


@pytest.mark.parametrize(
    ("device", "compute", "head_dim", "kernel"),
    [
        (H100, "bf16", 128, "flash"), (L4, "fp16", 64, "flash"), (L4, "bf16", 256, "memory_efficient"),
        (H100, "fp32", 128, "memory_efficient"), (T4, "fp16", 128, "memory_efficient"),
        (T4, "fp16", 80, "memory_efficient"), (T4, "fp32", 20, "memory_efficient"), (T4, "fp16", 20, "math"),
        (T4, "bf16", 128, "math"), (SLOW_CPU, "fp32", 128, "cpu"),
    ],
)  # fmt: skip
def test_the_kernel_that_attends_follows_card_type_and_head(
    device: Processor, compute: str, head_dim: int, kernel: str
) -> None:
    assert attention_kernel(device, compute, head_dim) == kernel


def test_a_refusal_says_rule_value_and_remedy() -> None:
    assert refusal("fp16", SLOW_CPU) == (
        "precision fp16 needs a GPU; on a CPU it is 8 to 12 times slower. Choose bf16 or fp32, or nf4 (which then "
        "computes in one of them)."
    )
    assert refusal("bf16", find_gpu("t4").processor) == (
        "precision bf16 needs a card of compute capability 8.0 or more; NVIDIA T4 has 7.5 and only emulates it, "
        "slowly. Choose fp16, or nf4 (which then computes in fp16); hardware.force_bf16: true insists."
    )


def test_of_the_catalogues_cards_those_before_ampere_have_no_bf16() -> None:
    assert {key for key, card in catalogue().items() if not card.processor.has_bf16} == {"t4", "v100"}


def test_a_processors_flags_say_whether_it_multiplies_bf16(tmp_path: Path) -> None:
    for flags, there in (("fpu avx2", False), ("fpu avx512_bf16 x", True), ("amx_bf16", True)):
        (tmp_path / "cpuinfo").write_text(f"model name: x\nflags\t\t: {flags}\n")
        assert cpu_multiplies_bf16(tmp_path / "cpuinfo") == there
    assert not cpu_multiplies_bf16(tmp_path / "missing")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the flags are read from Linux's /proc/cpuinfo")
def test_the_flags_of_this_machine_say_what_torch_says() -> None:
    """A plan reads them without torch, and the host with it: both must compute in one type."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    assert cpu_multiplies_bf16() == bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
