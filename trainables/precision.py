"""Decides what a device computes in, and refuses precisions that make no sense on it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Attention = Literal["flash", "memory_efficient", "cpu", "math"]  # math alone has tokens x tokens scores

BF16_CAPABILITY = (8, 0)  # from which cards multiply bf16; older ones claim to and emulate it
FLASH_CAPABILITY = (8, 0)  # from which FlashAttention 2 runs
FLASH_HEAD_DIM = 192  # widest heads whose gradient it computes on all of those cards
HALF_ALIGNMENT = 8  # head widths that the memory-efficient kernel takes in 16 bits are multiples of it


@dataclass(frozen=True)
class Processor:
    """What computes: a card of a compute capability, or a CPU (`capability` None) that multiplies bf16 or does not."""

    name: str
    capability: tuple[int, int] | None = None
    cpu_multiplies_bf16: bool = False

    @classmethod
    def of_cpu(cls, multiplies_bf16: bool = False) -> Processor:
        """A CPU, of whatever kind."""
        return cls("the CPU", None, multiplies_bf16)

    @property
    def has_bf16(self) -> bool:
        """Whether products in bf16 are worth using: decided by compute capability, not by what the driver claims."""
        return self.cpu_multiplies_bf16 if self.capability is None else self.capability >= BF16_CAPABILITY


def refusal(precision: str, device: Processor, force_bf16: bool = False) -> str | None:
    """Why the device should not compute in that precision; None where it may. `force_bf16` lets a card emulate bf16."""
    if device.capability is None:
        if precision != "fp16":
            return None
        return (
            "precision fp16 needs a GPU; on a CPU it is 8 to 12 times slower. Choose bf16 or fp32, or nf4 (which then "
            "computes in one of them)."
        )
    if precision != "bf16" or device.has_bf16 or force_bf16:
        return None
    major, minor = device.capability
    return (
        f"precision bf16 needs a card of compute capability 8.0 or more; {device.name} has {major}.{minor} and only "
        "emulates it, slowly. Choose fp16, or nf4 (which then computes in fp16); hardware.force_bf16: true insists."
    )


def compute_precision(precision: str, device: Processor) -> str:
    """What activations are computed in: the precision itself, but where the device has something better.

    On a card, NF4 takes bf16 from compute capability 8.0 up, else fp16. On a CPU, NF4 and bf16 are computed in bf16
    where the CPU multiplies it, else in fp32.
    """
    if device.capability is None:
        return ("bf16" if device.has_bf16 else "fp32") if precision in ("nf4", "bf16") else precision
    return ("bf16" if device.has_bf16 else "fp16") if precision == "nf4" else precision


def attention_kernel(device: Processor, compute: str, head_dim: int) -> Attention:
    """Which of torch's kernels attends in a training pass whose queries have as many heads as keys and values.

    On a card torch tries FlashAttention 2 (16 bits, compute capability 8.0), the memory-efficient kernel (fp16, fp32,
    from 8.0 bf16 too; in 16 bits heads of a multiple of 8), else plain mathematics. Only FlashAttention 2 takes
    fewer key heads than query heads in all versions; `trainables.base_model.attention` repeats them for the others.
    """
    if device.capability is None:
        return "cpu"
    in_half = compute in ("fp16", "bf16")
    if in_half and device.capability >= FLASH_CAPABILITY and head_dim <= FLASH_HEAD_DIM:
        return "flash"
    emulated = compute == "bf16" and not device.has_bf16
    if emulated or (in_half and head_dim % HALF_ALIGNMENT):
        return "math"
    return "memory_efficient"


def cpu_multiplies_bf16(information: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this machine's processor has AVX512-BF16 or AMX, by the flags that Linux lists."""
    with suppress(OSError):
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                return bool({"avx512_bf16", "amx_bf16"} & set(line.split()))
    return False
