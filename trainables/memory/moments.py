"""Lists the moments of training and generation that may be the peak, each with its bytes by component."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType

from trainables.base_model.shape import ModelShape
from trainables.limits import FP32_BYTES, NF4_BLOCK
from trainables.memory import counted_layers, fused_layers
from trainables.memory.setting import MemoryConstants, MemorySetting, Pass
from trainables.memory.weights import ModelPart
from trainables.settings import GenerationSettings

GENERATION = "generation"
INPUTS_ON_CARD = 3  # where layers' inputs wait in host memory: that at work, one on its way, the lowest, which stays
NEW_TOKENS = GenerationSettings.max_new_tokens  # of a generated text, whatever the study asks for

Components = Mapping[str, int]  # bytes by name


def training_moments(
    shape: ModelShape, setting: MemorySetting, one: Pass, constants: MemoryConstants, part: ModelPart
) -> dict[str, dict[str, int]]:
    """Returns the bytes beside weights, states and libraries at each moment of training that may be the peak.

    A pass without loads has workspaces alone.
    """
    engine = _engine(shape)
    factor = constants.activation_factor
    kept = _kept(engine, shape, setting, one, part)
    small = engine.small_tensors(shape, setting, one)
    inputs = {"layer_inputs": engine.layer_inputs(shape, setting, one, _inputs_there(setting, part.reached(one)))}
    backward = {
        name: {
            **inputs,
            "activations": math.ceil(factor * (kept + moment.rows_bytes)) + small,
            "targets": one.targets * shape.hidden_size * setting.compute_bytes,
            "dequantization": _dequantized(setting, moment.weight_values),
        }
        for name, moment in engine.backward_moments(shape, setting, one).items()
    }
    if not part.has_head:
        return backward
    at_loss = 0 if setting.gradient_checkpointing else kept
    targets = one.targets if one.loads else None
    loss = {
        **inputs,
        "activations": math.ceil(factor * at_loss) + small,
        "targets": fused_layers.loss_rows(shape, setting, one),
        "loss_chunk": fused_layers.loss_chunk(shape, setting, targets) + _cast_head(shape, setting),
    }
    return {**backward, "loss": loss}


def layer_input_bytes(shape: ModelShape, setting: MemorySetting, one: Pass, layers: int) -> int:
    """Returns the bytes of so many layers' inputs, as layers or checkpointing keep them."""
    return int(_engine(shape).layer_inputs(shape, setting, one, layers))


def inputs_leave(setting: MemorySetting) -> bool:
    """Whether layers' inputs wait in host memory: those that checkpointing keeps, and no other tensor of theirs."""
    return setting.offload.layer_inputs and setting.gradient_checkpointing


def _inputs_there(setting: MemorySetting, layers: int) -> int:
    """Counts the layers whose inputs are on the device at once; on a CPU those that wait are in the same memory."""
    return min(layers, INPUTS_ON_CARD) if inputs_leave(setting) and setting.leaves_device else layers


def basis_words(shape: ModelShape) -> str:
    """Says what the memory of a model's layers is predicted from."""
    counted = _engine(shape) is counted_layers
    return f"counted from one layer of {shape.model_type}" if counted else "formulas of the fused path"


def _engine(shape: ModelShape) -> ModuleType:
    """Returns the module that predicts the bytes of the model's layers: what was counted of them comes first."""
    return fused_layers if shape.counted is None else counted_layers


def _kept(engine: ModuleType, shape: ModelShape, setting: MemorySetting, one: Pass, part: ModelPart) -> int:
    """Returns the bytes that layers keep for their backward: one layer at a time with checkpointing, else all."""
    reached = part.reached(one)
    adapted = {load: part.adapted(load) for load in one.loads}
    if setting.gradient_checkpointing:
        reached, adapted = min(1, reached), {load: min(1, layers) for load, layers in adapted.items()}
    updates = sum(adapted[load] * engine.kept_by_update(shape, setting, one, load) for load in one.loads)
    return reached * engine.kept_by_layer(shape, setting, one) + updates


def generation(shape: ModelShape, setting: MemorySetting, tokens: int, part: ModelPart) -> dict[str, int]:
    """Returns the bytes of one row's generation beside weights, states and libraries.

    Keys and values in all layers (2 k e a token), and in the prompt's pass gate, up and their product (3 f) and four
    hidden states (4 d); the letters are those of `trainables.memory.fused_layers`.
    """
    counted = _engine(shape) is counted_layers
    width = counted_layers.cached_width(shape) if counted else shape.key_size
    cache = 2 * part.layers * (tokens + NEW_TOKENS) * width * setting.compute_bytes
    if counted:
        prompt = counted_layers.prompt_bytes(shape, setting, tokens)
    else:
        prompt = tokens * (4 * shape.hidden_size + 3 * shape.intermediate_size) * setting.compute_bytes
    logits = (FP32_BYTES + setting.compute_bytes) * shape.vocab_size
    weight = _dequantized(setting, shape.largest_linear)
    return {"key_value_cache": cache, "activations": prompt + logits, "dequantization": weight}


def workspace(moment: Components) -> int:
    """Returns the part of a moment's bytes that is the same however many adapters train."""
    return moment.get("dequantization", 0) + moment.get("loss_chunk", 0)


def _dequantized(setting: MemorySetting, values: int) -> int:
    """Returns the bytes of frozen weights in the compute type for a product: of NF4, and of 16 bits in fp32.

    An NF4 weight's absmax are written out first, one fp32 for each block.
    """
    if setting.precision == "nf4":
        return values * setting.compute_bytes + FP32_BYTES * values // NF4_BLOCK
    return values * setting.compute_bytes if setting.weight_bytes != setting.compute_bytes else 0


def _cast_head(shape: ModelShape, setting: MemorySetting) -> int:
    """Returns the bytes of the head in the compute type, where it is kept in another."""
    return shape.embedding_parameters * setting.compute_bytes if setting.weight_bytes != setting.compute_bytes else 0
