"""Decides how many tokens may go through the base model in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from trainables.base_model.load import BaseModel
from trainables.limits import MOST_PASS_TOKENS, USUAL_CONTEXT_BYTES, USUAL_PASS_TOKENS
from trainables.measure.context_memory import context_bytes
from trainables.memory.offload import RESIDENT, Offload
from trainables.memory.prediction import DEFAULT_CONSTANTS, workspace_bytes
from trainables.memory.setting import PRECISION_OF_DTYPE, MemorySetting
from trainables.memory.slack import allocated_within
from trainables.packed.member import TrainingMember
from trainables.packed.pack import PADDING_BYTES
from trainables.packed.passes import PassCost, PassLimits, tokens_that_fit
from trainables.settings import TrialSettings

PASS_SECONDS = 10.0  # at most, for more than the usual tokens: what trials ask of a host waits for the pass to end
FEWEST_TOKENS = 64
# What a pass costs beside its tokens. On a card, until it is measured there: dequantizing all weights of 8 billion
# parameters, about 26 ms where a token takes 0.09 ms.
FIXED_TOKENS = {"cpu": 16, "cuda": 285}


class PassBudget:
    """The most tokens of a pass on a device: what memory allows on a card, what is fastest on a CPU."""

    def __init__(
        self,
        kind: str,
        highest_bytes: Mapping[torch.device, int] | None = None,
        workspace_bytes: int = 0,
        padding_bytes: int = 0,
    ) -> None:
        """`highest_bytes` may be allocated on each card. `workspace_bytes` is what a pass needs whatever its rows;
        `padding_bytes` are kept free for what fills up ranks, where another run in a pass costs anything."""
        self._kind = kind
        self._highest = dict(highest_bytes or {})
        self._workspace_bytes, self._padding_bytes, self._kept_free = workspace_bytes, padding_bytes, workspace_bytes
        self._most = USUAL_PASS_TOKENS[kind]
        self._fixed_tokens: int | None = None
        self._bytes_per_token = 0.0

    @classmethod
    def of(cls, base: BaseModel, settings: TrialSettings, offload: Offload = RESIDENT) -> PassBudget:
        """The budget on a base model's devices, on which nothing else is allocated yet but buffers for what waits.

        Cards may be as full as the plan takes them to be: by the limit and CUDA's context, less the allocator's
        fragments (`trainables.memory.slack`). Buffers that come later are taken from what is free then.
        """
        cards = [device for device in base.devices if device.type == "cuda"]
        if not cards:
            return cls(base.device.type)
        setting = _setting(base, settings, offload)
        highest = {card: _highest_bytes(card, settings.hardware.memory_limit_bytes, setting) for card in cards}
        padding = 0 if settings.training.gradient_checkpointing else PADDING_BYTES  # then a layer's at a time
        return cls("cuda", highest, workspace_bytes(base.info.shape, setting), padding)

    def learn(self, pass_bytes: float, tokens: int) -> None:
        """Takes in what a pass in training was measured to need beside states, on the card where it needs most.

        At most half of it is taken for workspace. The tokens that needed most count, of all footprints.
        """
        of_rows = max(pass_bytes - self._workspace_bytes, pass_bytes / 2)
        self._bytes_per_token = max(self._bytes_per_token, of_rows / tokens)

    @property
    def wants_pass_cost(self) -> bool:
        """Whether what a pass costs beside its tokens is still to be measured: on a card, once."""
        return bool(self._highest) and self._fixed_tokens is None

    def learn_pass_cost(self, cost: PassCost | None) -> None:
        """Takes in what a pass was measured to cost; None: it could not be measured."""
        if cost is None:
            self._fixed_tokens = FIXED_TOKENS[self._kind]
            return
        self._fixed_tokens = cost.fixed_tokens
        self._kept_free = self._workspace_bytes + (self._padding_bytes if cost.run_tokens else 0)
        in_time = round(PASS_SECONDS / cost.seconds_per_token)
        self._most = min(MOST_PASS_TOKENS[self._kind], max(self._most, in_time))

    def shrink(self) -> bool:
        """Halves the passes after one ran out of memory; False where they cannot become smaller."""
        tokens = self.limits().max_tokens
        self._most = max(FEWEST_TOKENS, tokens // 2)
        return tokens > FEWEST_TOKENS

    def limits(self, members: Sequence[TrainingMember] = ()) -> PassLimits:
        """The limits of the next passes, in which the `members` accumulate gradients."""
        tokens, free = self._most, self.free_bytes(members)
        if free is not None and self._bytes_per_token > 0:
            tokens = tokens_that_fit(free - self._kept_free, self._bytes_per_token, self._most)
        return PassLimits(tokens, FIXED_TOKENS[self._kind] if self._fixed_tokens is None else self._fixed_tokens)

    def free_bytes(self, members: Sequence[TrainingMember] = ()) -> int | None:
        """Returns what may still be allocated on the card that has least, beside the members' gradients; None on a
        CPU."""
        gradients = gradient_bytes(members)
        free = (
            highest - torch.cuda.memory_allocated(card) - gradients.get(card, 0)
            for card, highest in self._highest.items()
        )
        return min(free, default=None)


def gradient_bytes(members: Sequence[TrainingMember]) -> dict[torch.device, int]:
    """Returns the bytes of gradients that the members do not have yet and will have within the step, by device."""
    found: dict[torch.device, int] = {}
    for parameter in (one for member in members for one in member.adapter.parameters() if one.grad is None):
        found[parameter.device] = found.get(parameter.device, 0) + parameter.nbytes
    return found


def _setting(base: BaseModel, settings: TrialSettings, offload: Offload) -> MemorySetting:
    return MemorySetting(
        precision=base.precision,
        compute_precision=PRECISION_OF_DTYPE[str(base.compute_dtype).removeprefix("torch.")],
        double_quantization=base.info.shape.doubly_quantized(settings.base_model.double_quantization),
        gradient_checkpointing=settings.training.gradient_checkpointing,
        offload=offload,
        optimizer=settings.training.optimizer,
    )


def _highest_bytes(card: torch.device, limit_bytes: int | None, setting: MemorySetting) -> int:
    """Returns how much may be allocated on a card that holds nothing but its part of the base model."""
    context = context_bytes(card)
    held = torch.cuda.get_device_properties(card).total_memory - (USUAL_CONTEXT_BYTES if context is None else context)
    weights = torch.cuda.memory_allocated(card)
    return allocated_within(setting, min(held, limit_bytes or held), weights, DEFAULT_CONSTANTS["cuda"])
