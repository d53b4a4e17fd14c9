"""How much may go through the base model at once, and moving adapters out of the way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from trainables.packed.passes import PassCost, PassLimits, tokens_that_fit
from trainables.packed.training import TrainingMember

# Past these a pass gains nothing: a CPU is busy from a few hundred tokens on, a card from a few thousand with 8 billion
# parameters. With 0.1 billion it is not: a card takes more where such a pass was measured to be short.
USUAL_TOKENS = {"cpu": 512, "cuda": 8192}
MOST_TOKENS = {"cpu": 512, "cuda": 65536}
PASS_SECONDS = 10.0  # at most, for more than the usual tokens: what trials ask of a host waits for the pass to end
FEWEST_TOKENS = 64
# What a pass costs beside its tokens. On a card, until it is measured there: dequantizing all weights of 8 billion
# parameters, about 26 ms where a token takes 0.09 ms.
FIXED_TOKENS = {"cpu": 16, "cuda": 285}
SLACK_BYTES = 3 * 2**28  # for the CUDA context and the allocator's fragments


class PassBudget:
    """How many tokens a pass may have on a device: by memory on a card, by what is fastest on a CPU."""

    def __init__(self, devices: Sequence[torch.device], memory_limit_bytes: int | None, padding_bytes: int = 0) -> None:
        """`padding_bytes` are kept free for what fills up ranks, where another run in a pass costs anything."""
        self._kind = devices[0].type
        self._most = USUAL_TOKENS[self._kind]
        self._fixed_tokens: int | None = None
        self._bytes_per_token = 0.0
        self._padding_bytes, self._kept_free = padding_bytes, SLACK_BYTES
        self._cards: dict[torch.device, int] = {}  # and what each may hold
        for device in devices:
            if device.type == "cuda":
                total = torch.cuda.get_device_properties(device).total_memory
                self._cards[device] = min(total, memory_limit_bytes or total)

    def learn(self, bytes_per_token: float) -> None:
        """Takes in what a token in training was measured to need on the card that it needs most of; the greatest
        counts."""
        self._bytes_per_token = max(self._bytes_per_token, bytes_per_token)

    @property
    def wants_pass_cost(self) -> bool:
        """Whether what a pass costs beside its tokens is still to be measured: on a card, once."""
        return bool(self._cards) and self._fixed_tokens is None

    def learn_pass_cost(self, cost: PassCost | None) -> None:
        """Takes in what a pass was measured to cost; None: it could not be measured."""
        if cost is None:
            self._fixed_tokens = FIXED_TOKENS[self._kind]
            return
        self._fixed_tokens = cost.fixed_tokens
        self._kept_free = SLACK_BYTES + (self._padding_bytes if cost.run_tokens else 0)
        in_time = round(PASS_SECONDS / cost.seconds_per_token)
        self._most = min(MOST_TOKENS[self._kind], max(self._most, in_time))

    def shrink(self) -> bool:
        """Halves the passes, after one ran out of memory; False where they are as small as they get."""
        tokens = self.limits().max_tokens
        self._most = max(FEWEST_TOKENS, tokens // 2)
        return tokens > FEWEST_TOKENS

    def limits(self) -> PassLimits:
        """The limits of the next passes."""
        tokens = self._most
        if self._cards and self._bytes_per_token > 0:
            free = min(total - torch.cuda.memory_allocated(card) for card, total in self._cards.items())
            tokens = tokens_that_fit(free - self._kept_free, self._bytes_per_token, self._most)
        return PassLimits(tokens, FIXED_TOKENS[self._kind] if self._fixed_tokens is None else self._fixed_tokens)


@contextmanager
def parked(members: Sequence[TrainingMember]) -> Iterator[None]:
    """Moves the members' tensors out of the way, and puts them back bit for bit.

    From a card they go to host memory; on a CPU, where the process itself is measured, to temporary files.
    """
    with ExitStack() as kept:  # what is away comes back, also where moving the next one, or bringing it back, fails
        for member in members:
            kept.callback(_Parked(member).back)
        yield


class _Parked:
    def __init__(self, member: TrainingMember) -> None:
        weights, moments = _tensors(member)
        self._member = member
        self._kept = [*weights, *moments] if member.step else weights
        self._zeros = [] if member.step else moments  # a fresh member's moments are not worth carrying
        self._shapes = [tensor.shape for tensor in self._zeros]
        self._devices = [tensor.device for tensor in self._kept]
        self._file: Path | None = None
        if self._devices[0].type == "cpu":
            self._file = _saved([tensor.data for tensor in self._kept])
        else:
            self._moved = [tensor.data.to("cpu") for tensor in self._kept]
        member.away = True
        for tensor in (*self._kept, *self._zeros):
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)

    def back(self) -> None:
        if self._file:
            kept = torch.load(self._file, weights_only=True)
            self._file.unlink()
        else:
            kept = [tensor.to(device) for tensor, device in zip(self._moved, self._devices, strict=True)]
        for tensor, data in zip(self._kept, kept, strict=True):
            tensor.data = data
        for tensor, shape in zip(self._zeros, self._shapes, strict=True):
            tensor.data = torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
        self._member.away = False


def _saved(tensors: list[torch.Tensor]) -> Path:
    with tempfile.NamedTemporaryFile(suffix=".parked", delete=False) as file:
        path = Path(file.name)
    try:
        torch.save(tensors, path)
    except BaseException:  # a full disk: the tensors are still in their place
        path.unlink()
        raise
    return path


def _tensors(member: TrainingMember) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The large tensors of a member: weights, and moments (AdamW's step counters stay)."""
    weights: list[torch.Tensor] = [*member.adapter.parameters()]
    moments = [
        value
        for parameter in weights
        for name, value in member.optimizer.state.get(parameter, {}).items()
        if name != "step"
    ]
    return weights, moments
