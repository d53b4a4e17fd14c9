"""Holds what memory depends on beside the model's shape: precision, checkpointing, adapters, rows, the card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from search_spaces.trial_config import TrialConfig
from trainables.precision import Attention

Device = Literal["cuda", "cpu"]
VALUE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
PRECISION_OF_DTYPE = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}  # by torch's names


@dataclass(frozen=True)
class MemorySetting:
    """The way a base model is kept and run; `compute_precision` is that of activations."""

    precision: str  # fp32, fp16, bf16 or nf4
    compute_precision: str
    double_quantization: bool = True
    gradient_checkpointing: bool = True
    device: Device = "cuda"
    attention: Attention = "flash"

    @property
    def compute_bytes(self) -> int:
        """Bytes of one activation value."""
        return VALUE_BYTES[self.compute_precision]

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight that is not quantized: embeddings, head and norms with NF4, else every weight."""
        return VALUE_BYTES[self.compute_precision if self.precision == "nf4" else self.precision]


@dataclass(frozen=True)
class AdapterLoad:
    """One adapter and the micro-batch that it brings: `rows` rows of `tokens` tokens, `targets` targets in them all."""

    rank: int
    target_modules: tuple[str, ...]
    dropout: bool
    rows: int
    tokens: int
    targets: int

    @classmethod
    def of(cls, config: TrialConfig, rows: int, tokens: int, targets: int | None = None) -> AdapterLoad:
        """Takes a configuration's load; without `targets`, every token counts as one."""
        return cls(
            config.rank,
            tuple(config.target_modules),
            config.lora_dropout > 0,
            rows,
            tokens,
            rows * tokens if targets is None else targets,
        )


@dataclass(frozen=True)
class Pass:
    """The rows that go through the model together, of all adapters, padded to the longest."""

    loads: Sequence[AdapterLoad] = ()

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(load.rows for load in self.loads)

    @property
    def width(self) -> int:
        """Tokens of the longest row."""
        return max((load.tokens for load in self.loads), default=0)

    @property
    def tokens(self) -> int:
        """Rows times longest row."""
        return self.rows * self.width

    @property
    def targets(self) -> int:
        """Targets of all rows."""
        return sum(load.targets for load in self.loads)


@dataclass(frozen=True)
class MemoryConstants:
    """The few numbers that shapes do not give; a calibration corrects them for each card.

    `context_bytes`: what CUDA takes of the card outside the allocator. `offset_bytes`: what is allocated whatever the
    shapes, such as cuBLAS' workspaces; on a CPU interpreter and libraries. `activation_factor` multiplies activations
    and workspaces. `slack_factor` multiplies what is kept free for the allocator's fragments
    (`trainables.memory.slack`).
    """

    context_bytes: int
    offset_bytes: int
    activation_factor: float = 1.0
    slack_factor: float = 1.0
    calibrated: bool = False
