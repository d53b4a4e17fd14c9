"""Holds what memory depends on beside the model's shape: precision, checkpointing, adapters, rows, the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from search_spaces.trial_config import TrialConfig
from trainables.base_model.shape import ModelShape
from trainables.memory.offload import RESIDENT, Offload
from trainables.precision import Attention
from trainables.settings import Optimizer

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
    offload: Offload = RESIDENT
    optimizer: Optimizer = "adamw"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> MemorySetting:
        """Reads `asdict`'s form as JSON keeps it; without `offload`, all is resident. Raises TypeError for another."""
        return cls(**{**values, "offload": Offload(**values.get("offload", {}))})

    @property
    def leaves_device(self) -> bool:
        """Whether what waits in host memory is off the device: a CPU's device is its host memory."""
        return self.device != "cpu"

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
    """One adapter and the micro-batch that it brings: `rows` rows of `tokens` tokens, `targets` targets in them all.

    `target_modules` are the short names of a layer's linear layers, `layers` counts the layers that carry them, and
    `reach` those from the lowest of these up to the model's last, which the backward pass goes through. None: all
    layers; a reach of None with `layers` given: the model's upper layers, as many.
    """

    rank: int
    target_modules: tuple[str, ...]
    dropout: bool
    rows: int
    tokens: int
    targets: int
    layers: int | None = None
    reach: int | None = None

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

    def carried_by(self, names: Sequence[Sequence[str]]) -> AdapterLoad:
        """Returns the load of an adapter that updates these linear layers, by short name, of each of a model's layers.

        A layer counts as one that carries all of the names that any does.
        """
        carrying = [place for place, own in enumerate(names) if own]
        modules = tuple(dict.fromkeys(name for own in names for name in own))
        reach = len(names) - min(carrying, default=len(names))
        if len(carrying) == len(names):
            return replace(self, target_modules=modules, layers=None, reach=None)
        return replace(self, target_modules=modules, layers=len(carrying), reach=reach)

    @property
    def reached(self) -> int | None:
        """The layers that the backward pass goes through, counted from the last; None: all."""
        return self.layers if self.reach is None else self.reach

    def parameters(self, shape: ModelShape) -> int:
        """Counts the adapter's trainable numbers."""
        everywhere = shape.adapter_parameters(self.rank, self.target_modules)
        return everywhere if self.layers is None else everywhere * self.layers // shape.layers


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

    def part_of(self, load: AdapterLoad) -> Pass:
        """One adapter's part of the pass: its rows, padded to the longest of all."""
        return Pass((replace(load, tokens=self.width),))


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
