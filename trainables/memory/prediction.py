"""Predicted memory of training LoRA adapters over a frozen base model, component by component. (pure, no torch)

Everything follows from shapes but a few constants per card (`MemoryConstants`), which measurements correct. The peak is
the highest of a few moments; each moment's bytes are a sum of named components.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainables.base_model.shape import ModelShape
from trainables.memory import autograd_layers, fused_layers
from trainables.memory.setting import AdapterLoad, Device, MemoryConstants, MemorySetting, Pass

FP32_BYTES = 4
NF4_BLOCK = 64  # values that share an absmax
ABSMAX_BLOCK = 256  # absmax values that share one of the second level, with double quantization
NF4_TABLES_BYTES = 2048  # of a linear layer: NF4's 16 values, the 8-bit code's 256, the offset, as allocated
NEW_TOKENS = 128  # of a generated answer, by default
MIB = 2**20

# Until a calibration corrects them. CUDA: cuBLAS keeps a workspace for each of the two threads that multiply (forward
# and backward): 8.1 MiB each, and 32 MiB on Hopper. CPU: interpreter, torch, transformers, bitsandbytes, Ray's worker.
DEFAULT_CONSTANTS: Mapping[Device, MemoryConstants] = {
    "cuda": MemoryConstants(context_bytes=450 * MIB, offset_bytes=64 * MIB, reserved_factor=1.02),
    "cpu": MemoryConstants(context_bytes=0, offset_bytes=600 * MIB),
}

Components = Mapping[str, int]
_GENERATION = "generation"


@dataclass(frozen=True)
class ModelPart:
    """What one card holds of a model: all of it, or some of its layers where several cards share it."""

    layers: int
    has_embedding: bool = True
    has_head: bool = True


@dataclass(frozen=True)
class MemoryPrediction:
    """Predicted bytes on one device: what is there at each moment, by component.

    `peak_memory_bytes` is what `trainables.measure.training_cost.peak_memory` measures in training: the allocator's
    peak, or on a CPU the process' resident peak.
    """

    moments: Mapping[str, Components]
    constants: MemoryConstants

    @property
    def peak_moment(self) -> str:
        """The moment of training with the highest sum."""
        training = [name for name in self.moments if name != _GENERATION]
        return max(training, key=lambda name: sum(self.moments[name].values()))

    @property
    def components(self) -> Components:
        """The peak's bytes by name; they sum to `peak_memory_bytes`."""
        return self.moments[self.peak_moment]

    @property
    def peak_memory_bytes(self) -> int:
        """The highest sum of training."""
        return sum(self.components.values())

    @property
    def needed_bytes(self) -> int:
        """The highest sum of any moment, generation included: what must fit."""
        return max(sum(moment.values()) for moment in self.moments.values())

    @property
    def largest_moment(self) -> tuple[str, Components]:
        """The moment of `needed_bytes`, and its bytes by name."""
        return max(self.moments.items(), key=lambda moment: sum(moment[1].values()))

    @property
    def reserved_bytes(self) -> int:
        """What the allocator holds of the card for `needed_bytes`, its slack included."""
        return round(self.needed_bytes * self.constants.reserved_factor)

    @property
    def device_bytes(self) -> int:
        """Everything on the card: the allocator's hold and the CUDA context."""
        return self.reserved_bytes + self.constants.context_bytes


def predict(
    shape: ModelShape, setting: MemorySetting, load: AdapterLoad, constants: MemoryConstants | None = None
) -> MemoryPrediction:
    """One adapter training alone."""
    return predict_pack(shape, setting, [load], constants)


def predict_pack(
    shape: ModelShape,
    setting: MemorySetting,
    loads: Sequence[AdapterLoad],
    constants: MemoryConstants | None = None,
    part: ModelPart | None = None,
) -> MemoryPrediction:
    """Adapters that train together: the base once, each adapter's own state, and all their rows in one pass.

    `part` is what the device holds of the model (default: all). With checkpointing every layer keeps its input and one
    layer at a time what its backward reads, computed again; without, all layers keep both. The optimizer's update needs
    nothing beside the states (AdamW's fused kernel), so it is no moment of its own. The peaks of `loss` and of a
    layer's backward are those of the last layer, when all inputs are there.
    """
    constants = constants or DEFAULT_CONSTANTS[setting.device]
    part = part or ModelPart(shape.layers)
    always = {
        **base_components(shape, setting, part),
        **_state_components(shape, loads, part),
        "libraries": constants.offset_bytes,
    }
    one = Pass(tuple(loads))
    moments = _moments(shape, setting, one, constants, part)
    moments[_GENERATION] = _generation(shape, setting, one.width, part)
    return MemoryPrediction({name: {**always, **own} for name, own in moments.items()}, constants)


def adapter_bytes(
    shape: ModelShape, setting: MemorySetting, load: AdapterLoad, constants: MemoryConstants | None = None
) -> int:
    """What one adapter adds to a device: weights, gradients, AdamW's moments, and its rows' activations and loss.

    With `base_bytes`, all adapters' own bytes are together never less than `predict_pack` of the adapters, where rows
    are equally long: a sum of largest moments is at least each moment's sum.
    """
    constants = constants or DEFAULT_CONSTANTS[setting.device]
    part = ModelPart(shape.layers)
    moments = _moments(shape, setting, Pass((load,)), constants, part)
    moments[_GENERATION] = _generation(shape, setting, load.tokens, part)
    rows = max(sum(own.values()) - _workspace(own) for own in moments.values())
    return sum(_state_components(shape, [load], part).values()) + rows


def base_bytes(shape: ModelShape, setting: MemorySetting, constants: MemoryConstants | None = None) -> int:
    """What is on a device whatever adapters train there: frozen weights, libraries, and the largest workspace."""
    constants = constants or DEFAULT_CONSTANTS[setting.device]
    part = ModelPart(shape.layers)
    moments = _moments(shape, setting, Pass(), constants, part)
    weights = sum(base_components(shape, setting, part).values())
    return weights + constants.offset_bytes + max(_workspace(own) for own in moments.values())


def room(shape: ModelShape, setting: MemorySetting, card_bytes: int, constants: MemoryConstants | None = None) -> int:
    """What a card leaves for adapters beside base, workspace, CUDA context and allocator slack; negative: nothing."""
    constants = constants or DEFAULT_CONSTANTS[setting.device]
    return allocatable(card_bytes, constants) - base_bytes(shape, setting, constants)


def allocatable(card_bytes: int, constants: MemoryConstants) -> int:
    """The highest allocator's peak that a card of so many bytes can hold."""
    return int((card_bytes - constants.context_bytes) / constants.reserved_factor)


def _workspace(moment: Components) -> int:
    return moment.get("dequantization", 0) + moment.get("loss_chunk", 0)


# -- weights ----------------------------------------------------------------------------------------------------------


def base_components(shape: ModelShape, setting: MemorySetting, part: ModelPart) -> dict[str, int]:
    """The frozen weights: quantized or not the layers' linear ones; embedding, head and norms never quantized."""
    linears = sum(linear_bytes(inward * outward, setting) for inward, outward in shape.linears.values())
    tied_here = shape.tie_word_embeddings and part.has_embedding and part.has_head
    tables = 1 if tied_here else int(part.has_embedding) + int(part.has_head)
    others = shape.other_parameters * part.layers // shape.layers
    return {
        "base_linears": part.layers * linears,
        "embedding_and_head": tables * shape.embedding_parameters * setting.weight_bytes,
        "norms": others * setting.weight_bytes,
    }


def linear_bytes(values: int, setting: MemorySetting) -> int:
    """One frozen linear weight of so many values.

    NF4 (Dettmers et al. 2023, arXiv 2305.14314): half a byte a value, and one absmax for each block of 64 values. With
    double quantization an absmax is one byte, and each 256 of them share one of fp32: 0.5 + 1 / 64 + 4 / (64 x 256)
    bytes a value, 4.127 bits; without, 0.5 + 4 / 64 bytes, 4.5 bits.
    """
    if setting.precision != "nf4":
        return values * setting.weight_bytes
    blocks = -(-values // NF4_BLOCK)
    absmax = blocks + FP32_BYTES * -(-blocks // ABSMAX_BLOCK) if setting.double_quantization else FP32_BYTES * blocks
    return -(-values // 2) + absmax + NF4_TABLES_BYTES


def _state_components(shape: ModelShape, loads: Sequence[AdapterLoad], part: ModelPart) -> dict[str, int]:
    """Weight, gradient and AdamW's two moments of every trainable number, all fp32."""
    numbers = sum(shape.adapter_parameters(load.rank, load.target_modules) for load in loads)
    weights = FP32_BYTES * numbers * part.layers // shape.layers
    return {"adapter_weights": weights, "gradients": weights, "optimizer_state": 2 * weights}


# -- moments ----------------------------------------------------------------------------------------------------------


def _moments(
    shape: ModelShape, setting: MemorySetting, one: Pass, constants: MemoryConstants, part: ModelPart
) -> dict[str, dict[str, int]]:
    """Bytes beside weights, states and libraries at each moment that may be the peak; `one` without loads:
    workspaces."""
    engine = fused_layers if shape.is_plain_llama else autograd_layers
    layers_at_once = 1 if setting.gradient_checkpointing else part.layers
    factor = constants.activation_factor
    kept = engine.kept_by_layer(shape, setting, one)
    small = fused_layers.small_tensors(shape, setting, one)
    inputs = {"layer_inputs": engine.layer_inputs(shape, setting, one, part.layers)}
    backward = {
        name: {
            **inputs,
            "activations": math.ceil(factor * (layers_at_once * kept + moment.rows_bytes)) + small,
            "targets": one.targets * shape.hidden_size * setting.compute_bytes,
            "dequantization": _dequantized(setting, moment.weight_values),
        }
        for name, moment in engine.backward_moments(shape, setting, one).items()
    }
    if not part.has_head:
        return backward
    at_loss = 0 if setting.gradient_checkpointing else layers_at_once * kept
    targets = one.targets if one.loads else None
    loss = {
        **inputs,
        "activations": math.ceil(factor * at_loss) + small,
        "targets": fused_layers.loss_rows(shape, setting, one),
        "loss_chunk": fused_layers.loss_chunk(shape, setting, targets) + _cast_head(shape, setting),
    }
    return {**backward, "loss": loss}


def _dequantized(setting: MemorySetting, values: int) -> int:
    """Frozen weights that are written out in the compute type for a product: of NF4, and of 16 bits computed in fp32.

    An NF4 weight's absmax are written out first, one fp32 for each block.
    """
    if setting.precision == "nf4":
        return values * setting.compute_bytes + FP32_BYTES * values // NF4_BLOCK
    return values * setting.compute_bytes if setting.weight_bytes != setting.compute_bytes else 0


def _cast_head(shape: ModelShape, setting: MemorySetting) -> int:
    """The head in the compute type, where it is kept in another."""
    return shape.embedding_parameters * setting.compute_bytes if setting.weight_bytes != setting.compute_bytes else 0


def _generation(shape: ModelShape, setting: MemorySetting, tokens: int, part: ModelPart) -> dict[str, int]:
    """One row's keys and values in all layers, 2 k e a token, and the prompt's pass: gate, up and product (3 f), 4
    d."""
    cache = 2 * part.layers * (tokens + NEW_TOKENS) * shape.key_size * setting.compute_bytes
    prompt = tokens * (4 * shape.hidden_size + 3 * shape.intermediate_size) * setting.compute_bytes
    logits = (FP32_BYTES + setting.compute_bytes) * shape.vocab_size
    weight = _dequantized(setting, shape.largest_linear)
    return {"key_value_cache": cache, "activations": prompt + logits, "dequantization": weight}
