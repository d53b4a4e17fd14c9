"""Predicts the peak memory of training LoRA adapters over a frozen base model, component by component.

Everything follows from shapes but a few constants per card (`MemoryConstants`), which measurements correct. The peak is
the highest of a few moments; each moment's bytes are a sum of named components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainables.base_model.shape import ModelShape
from trainables.limits import USUAL_CONTEXT_BYTES
from trainables.memory.moments import GENERATION, Components, generation, training_moments, workspace
from trainables.memory.optimizer_states import staging_bytes
from trainables.memory.setting import AdapterLoad, Device, MemoryConstants, MemorySetting, Pass
from trainables.memory.slack import allocated_within, slack_bytes
from trainables.memory.weights import FROZEN, ModelPart, base_components, state_components

MIB = 2**20

# Until a calibration corrects them. CUDA: cuBLAS keeps a workspace for each of the two threads that multiply (forward
# and backward): 8.1 MiB each, and 32 MiB on Hopper. CPU: interpreter, torch, transformers, bitsandbytes, Ray's worker,
# as `trainables.base_model.lean_imports` imports them; a host that quantizes imports some 80 MiB more.
DEFAULT_CONSTANTS: Mapping[Device, MemoryConstants] = {
    "cuda": MemoryConstants(context_bytes=USUAL_CONTEXT_BYTES, offset_bytes=64 * MIB),
    "cpu": MemoryConstants(context_bytes=0, offset_bytes=395 * MIB),
}


@dataclass(frozen=True)
class MemoryPrediction:
    """Predicted bytes on one device at each moment, by component.

    `peak_memory_bytes` is what `trainables.measure.peak_memory` measures in training: the allocator's
    peak, or on a CPU the process' resident peak.
    """

    moments: Mapping[str, Components]
    setting: MemorySetting
    constants: MemoryConstants

    @property
    def peak_moment(self) -> str:
        """The moment of training with the highest sum."""
        training = [name for name in self.moments if name != GENERATION]
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
    def slack_bytes(self) -> int:
        """What must be there for the allocator's fragments beside `needed_bytes`."""
        _, components = self.largest_moment
        own = self.needed_bytes - sum(components[name] for name in FROZEN)
        return slack_bytes(self.setting, own, self.constants)

    @property
    def reserved_bytes(self) -> int:
        """What the allocator must be able to hold for `needed_bytes`."""
        return self.needed_bytes + self.slack_bytes

    @property
    def device_bytes(self) -> int:
        """What a card must have: what the allocator holds, and the CUDA context."""
        return self.reserved_bytes + self.constants.context_bytes

    @property
    def device_components(self) -> Components:
        """The bytes of `device_bytes` by name: those of the largest moment, the fragments and the context."""
        _, components = self.largest_moment
        return {**components, "fragments": self.slack_bytes, "context": self.constants.context_bytes}


def predict(
    shape: ModelShape, setting: MemorySetting, load: AdapterLoad, constants: MemoryConstants | None = None
) -> MemoryPrediction:
    """Predicts one adapter training alone."""
    return predict_pack(shape, setting, [load], constants)


def predict_pack(
    shape: ModelShape,
    setting: MemorySetting,
    loads: Sequence[AdapterLoad],
    constants: MemoryConstants | None = None,
    part: ModelPart | None = None,
) -> MemoryPrediction:
    """Predicts adapters that train together: the base once, each adapter's own state, all their rows in one pass.

    `part` is what the device holds of the model (default: all). With checkpointing every layer keeps its input and one
    layer at a time what its backward reads, computed again; without, all layers keep both. The optimizer's update needs
    nothing beside the states (AdamW's fused kernel) and their staging, so it is no moment of its own. The peaks of
    `loss` and of a layer's backward are those of the last layer, when all inputs are there. What waits in host memory
    (`setting.offload`) is not there, but buffers through which it comes are, at every moment.
    """
    constants = constants or DEFAULT_CONSTANTS[setting.device]
    part = part or ModelPart(shape.layers)
    always = {
        **base_components(shape, setting, part),
        **state_components(shape, loads, part, setting),
        "optimizer_staging": staging_bytes(shape, setting, loads),
        "libraries": constants.offset_bytes,
    }
    one = Pass(tuple(loads))
    moments = training_moments(shape, setting, one, constants, part)
    moments[GENERATION] = generation(shape, setting, one.width, part)
    return MemoryPrediction({name: {**always, **own} for name, own in moments.items()}, setting, constants)


def adapter_bytes(
    shape: ModelShape, setting: MemorySetting, load: AdapterLoad, constants: MemoryConstants | None = None
) -> int:
    """Returns the bytes that one adapter adds to a device: weights, gradients, AdamW's moments, and its rows' own.

    With `base_bytes`, all adapters' own bytes are together never less than `predict_pack` of the adapters, where rows
    are equally long: a sum of largest moments is at least each moment's sum.
    """
    constants = constants or DEFAULT_CONSTANTS[setting.device]
    part = ModelPart(shape.layers)
    moments = training_moments(shape, setting, Pass((load,)), constants, part)
    moments[GENERATION] = generation(shape, setting, load.tokens, part)
    rows = max(sum(own.values()) - workspace(own) for own in moments.values())
    staging = staging_bytes(shape, setting, [load]) - staging_bytes(shape, setting, [])
    return sum(state_components(shape, [load], part, setting).values()) + staging + rows


def base_bytes(shape: ModelShape, setting: MemorySetting, constants: MemoryConstants | None = None) -> int:
    """Returns a device's bytes whatever adapters train there: frozen weights, libraries, the largest workspace.

    Where moments wait in host memory, their staging too.
    """
    constants = constants or DEFAULT_CONSTANTS[setting.device]
    part = ModelPart(shape.layers)
    weights = sum(base_components(shape, setting, part).values())
    staging = staging_bytes(shape, setting, [])
    return weights + constants.offset_bytes + staging + workspace_bytes(shape, setting, constants)


def workspace_bytes(shape: ModelShape, setting: MemorySetting, constants: MemoryConstants | None = None) -> int:
    """Returns the bytes that a pass needs at most beside what its rows do, however many they are."""
    constants = constants or DEFAULT_CONSTANTS[setting.device]
    moments = training_moments(shape, setting, Pass(), constants, ModelPart(shape.layers))
    return max(workspace(own) for own in moments.values())


def room(shape: ModelShape, setting: MemorySetting, card_bytes: int, constants: MemoryConstants | None = None) -> int:
    """Returns the bytes that a card of `card_bytes` leaves for adapters; negative where not even the base fits."""
    constants = constants or DEFAULT_CONSTANTS[setting.device]
    return allocatable(shape, setting, card_bytes, constants) - base_bytes(shape, setting, constants)


def allocatable(shape: ModelShape, setting: MemorySetting, card_bytes: int, constants: MemoryConstants) -> int:
    """Returns the highest allocated peak, in bytes, that a card of `card_bytes` can hold with the whole base model."""
    weights = sum(base_components(shape, setting, ModelPart(shape.layers)).values())
    return allocated_within(setting, card_bytes - constants.context_bytes, weights, constants)
