"""Decides how many tokens may go through the base model in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainables.limits import MOST_PASS_TOKENS, USUAL_PASS_TOKENS
from trainables.packed.passes import PassCost, PassLimits, tokens_that_fit

PASS_SECONDS = 10.0  # at most, for more than the usual tokens: what trials ask of a host waits for the pass to end
FEWEST_TOKENS = 64
# What a pass costs beside its tokens. On a card, until it is measured there: dequantizing all weights of 8 billion
# parameters, about 26 ms where a token takes 0.09 ms.
FIXED_TOKENS = {"cpu": 16, "cuda": 285}
SLACK_BYTES = 3 * 2**28  # for the CUDA context and the allocator's fragments


class PassBudget:
    """The most tokens of a pass on a device: what memory allows on a card, what is fastest on a CPU."""

    def __init__(self, devices: Sequence[torch.device], memory_limit_bytes: int | None, padding_bytes: int = 0) -> None:
        """`padding_bytes` are kept free for what fills up ranks, where another run in a pass costs anything."""
        self._kind = devices[0].type
        self._most = USUAL_PASS_TOKENS[self._kind]
        self._fixed_tokens: int | None = None
        self._bytes_per_token = 0.0
        self._padding_bytes, self._kept_free = padding_bytes, SLACK_BYTES
        self._cards: dict[torch.device, int] = {}  # and what each may hold
        for device in devices:
            if device.type == "cuda":
                total = torch.cuda.get_device_properties(device).total_memory
                self._cards[device] = min(total, memory_limit_bytes or total)

    def learn(self, bytes_per_token: float) -> None:
        """Takes in the bytes that a token in training was measured to need, on the card where it needs most.

        The greatest of all footprints counts.
        """
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
        self._most = min(MOST_PASS_TOKENS[self._kind], max(self._most, in_time))

    def shrink(self) -> bool:
        """Halves the passes after one ran out of memory; False where they cannot become smaller."""
        tokens = self.limits().max_tokens
        self._most = max(FEWEST_TOKENS, tokens // 2)
        return tokens > FEWEST_TOKENS

    def limits(self) -> PassLimits:
        """The limits of the next passes."""
        tokens, free = self._most, self.free_bytes()
        if free is not None and self._bytes_per_token > 0:
            tokens = tokens_that_fit(free - self._kept_free, self._bytes_per_token, self._most)
        return PassLimits(tokens, FIXED_TOKENS[self._kind] if self._fixed_tokens is None else self._fixed_tokens)

    def free_bytes(self) -> int | None:
        """Returns what is not allocated of the card that has least; None on a CPU."""
        return min((total - torch.cuda.memory_allocated(card) for card, total in self._cards.items()), default=None)
