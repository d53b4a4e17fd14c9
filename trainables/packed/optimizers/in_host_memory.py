"""Keeps an adapter's optimizer state in host memory, and brings it to the card for its update alone, in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch

from trainables.packed.host_memory.side_stream import CopyMark
from trainables.packed.host_memory.tensor_block import Place, host_block, placed
from trainables.packed.optimizers.optimizer_state import OptimizerState
from trainables.packed.optimizers.rule import Rule, State, StepValues
from trainables.packed.optimizers.staging import Part, Staging


class InHostMemory:
    """Kept in one block of host memory, page-locked where the parameters are on a card.

    The update is that of `Resident` to the bit: every number's depends on nothing but itself, so that parts can be
    taken one after another. Until it is claimed it is zeros that take no memory. The block is the optimizer's own for
    its life, and waits for copies that are under way before it is freed (`trainables.host_pages.pages`).
    """

    def __init__(self, rule: Rule, parameters: Sequence[torch.Tensor], staging: Staging) -> None:
        self._rule = rule
        self._staging = staging
        self._state = {one: rule.zeros(one) for one in parameters}
        self._parts: list[Part] = []
        self._written: dict[torch.device, CopyMark] = {}  # the last copy of each device: its earlier ones end before

    @property
    def state(self) -> Mapping[torch.Tensor, State]:
        """What is kept, by parameter; waits for the last update's copies."""
        for mark in self._written.values():
            mark.hold_host()
        self._written = {}
        self._staging.forget()
        return self._state

    def claim(self, homes: Sequence[torch.device]) -> None:
        """Takes the block in host memory, of zeros; only once."""
        if self._parts:
            return
        groups = _groups(self._state, homes, self._staging.staged_bytes)
        block = host_block(sum(one.nbytes for one in groups), homes).zero_()
        hosts = block.split([one.nbytes for one in groups])
        self._parts = [Part(one.device, host, one.places) for one, host in zip(groups, hosts, strict=True)]
        self._state = {one: state for part in self._parts for one, state in part.states(part.host).items()}

    def prepare(self, homes: Sequence[torch.device]) -> None:
        """Takes the block, and on each of these devices the room to stage a part of it."""
        self.claim(homes)
        for part in self._parts:
            self._staging.lane(part.device).make_room(part.host.nbytes)

    def moving(self, parameter: torch.Tensor) -> State:
        """Returns nothing: it stays where it is."""
        return {}

    def fetch_ahead(self) -> None:
        """Starts to bring the first part to the card."""
        self._fetch(self._parts[0])

    def update(
        self,
        gradients: Mapping[torch.Tensor, torch.Tensor],
        values: StepValues,
        then: OptimizerState | None = None,
    ) -> None:
        """Queues a step of the parameters that have gradients, part by part."""
        for part, following in zip_longest(self._parts, self._parts[1:]):
            block = self._staging.lane(part.device).take(part)
            if following is not None:
                self._fetch(following)
            elif then is not None:
                then.fetch_ahead()
            self._update(part, block, gradients, values)
            self._written[part.device] = self._staging.lane(part.device).write_back(part, block)

    def _fetch(self, part: Part) -> None:
        self._staging.lane(part.device).fetch(part)

    def _update(
        self, part: Part, block: torch.Tensor, gradients: Mapping[torch.Tensor, torch.Tensor], values: StepValues
    ) -> None:
        states = {one: state for one, state in part.states(block).items() if one in gradients}
        if states:
            self._rule.update(list(states), [gradients[one] for one in states], list(states.values()), values)


@dataclass
class _Group:
    """Parameters whose states are staged together, one after another."""

    device: torch.device
    places: dict[torch.Tensor, dict[str, Place]]
    nbytes: int = 0

    def add(self, parameter: torch.Tensor, state: State) -> None:
        places, end = placed(list(state.values()), self.nbytes)
        self.places[parameter] = dict(zip(state, places, strict=True))
        self.nbytes = end


def _groups(states: Mapping[torch.Tensor, State], homes: Sequence[torch.device], most_bytes: int) -> list[_Group]:
    """Puts neighbours on one device together while they fit into a buffer; a larger parameter is by itself."""
    groups: list[_Group] = []
    for (parameter, state), home in zip(states.items(), homes, strict=True):
        _, nbytes = placed(list(state.values()))
        if not groups or groups[-1].device != home or groups[-1].nbytes + nbytes > most_bytes:
            groups.append(_Group(home, {}))
        groups[-1].add(parameter, state)
    return groups
