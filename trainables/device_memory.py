"""How much may go through the base model at once, and moving adapters out of the way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from trainables.packed_training import TrainingMember
from trainables.passes import PassLimits, tokens_that_fit

# Past these a pass gains nothing: a CPU is busy from a few hundred tokens on, a card from a few thousand.
MOST_TOKENS = {"cpu": 512, "cuda": 8192}
FEWEST_TOKENS = 64
# What a pass costs beside its tokens. On a card: dequantizing all weights, about 26 ms where a token takes 0.09 ms.
FIXED_TOKENS = {"cpu": 16, "cuda": 285}
SLACK_BYTES = 3 * 2**28  # for the CUDA context and the allocator's fragments


class PassBudget:
    """How many tokens a pass may have on a device: by memory on a card, by what is fastest on a CPU."""

    def __init__(self, device: torch.device, memory_limit_bytes: int | None) -> None:
        self._device = device
        self._most = MOST_TOKENS[device.type]
        self._bytes_per_token = 0.0
        self._card_bytes = 0
        if device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory
            self._card_bytes = min(total, memory_limit_bytes or total)

    def learn(self, bytes_per_token: float) -> None:
        """Takes in what a token in training was measured to need; the greatest counts."""
        self._bytes_per_token = max(self._bytes_per_token, bytes_per_token)

    def shrink(self) -> bool:
        """Halves the passes, after one ran out of memory; False where they are as small as they get."""
        tokens = self.limits().max_tokens
        self._most = max(FEWEST_TOKENS, tokens // 2)
        return tokens > FEWEST_TOKENS

    def limits(self) -> PassLimits:
        """The limits of the next passes."""
        tokens = self._most
        if self._device.type == "cuda" and self._bytes_per_token > 0:
            free = self._card_bytes - torch.cuda.memory_allocated(self._device) - SLACK_BYTES
            tokens = tokens_that_fit(free, self._bytes_per_token, self._most)
        return PassLimits(tokens, FIXED_TOKENS[self._device.type])


@contextmanager
def parked(members: Sequence[TrainingMember], device: torch.device) -> Iterator[None]:
    """Moves the members' tensors out of the way, and puts them back bit for bit.

    From a card they go to host memory; on a CPU, where the process itself is measured, to temporary files.
    """
    with ExitStack() as kept:  # what is away comes back, also where moving the next one, or bringing it back, fails
        for member in members:
            kept.callback(_Parked(member, device).back)
        yield


class _Parked:
    def __init__(self, member: TrainingMember, device: torch.device) -> None:
        self._member = member
        self._device = device
        self._file: Path | None = None
        tensors = _tensors(member)
        if device.type == "cpu":
            self._file = _saved([tensor.data for tensor in tensors])
        else:
            self._moved = [tensor.data.to("cpu") for tensor in tensors]
        for tensor in tensors:
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=device)

    def back(self) -> None:
        if self._file:
            kept = torch.load(self._file, weights_only=True)
            self._file.unlink()
        else:
            kept = [tensor.to(self._device) for tensor in self._moved]
        for tensor, data in zip(_tensors(self._member), kept, strict=True):
            tensor.data = data


def _saved(tensors: list[torch.Tensor]) -> Path:
    with tempfile.NamedTemporaryFile(suffix=".parked", delete=False) as file:
        path = Path(file.name)
    try:
        torch.save(tensors, path)
    except BaseException:  # a full disk: the tensors are still in their place
        path.unlink()
        raise
    return path


def _tensors(member: TrainingMember) -> list[torch.Tensor]:
    """The large tensors of a member: weights and moments (AdamW's step counters stay)."""
    moments = [
        value
        for parameter in member.adapter.parameters()
        for name, value in member.optimizer.state.get(parameter, {}).items()
        if name != "step"
    ]
    return [*member.adapter.parameters(), *moments]
