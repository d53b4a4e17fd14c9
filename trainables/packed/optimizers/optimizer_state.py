"""Holds what an optimizer keeps of one adapter's parameters, on the card or elsewhere between updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from trainables.packed.optimizers.rule import Rule, State, StepValues


class OptimizerState(Protocol):
    """What is kept of each of an adapter's parameters, and the update that changes it."""

    @property
    def state(self) -> Mapping[torch.Tensor, State]:
        """What is kept, by parameter; to be read, or copied into once it is claimed, between updates."""
        ...

    def claim(self, homes: Sequence[torch.device]) -> None:
        """Takes the host memory that it is kept in; `homes` are the devices that the parameters train on."""
        ...

    def prepare(self, homes: Sequence[torch.device]) -> None:
        """Takes all that updates on these devices need beside the parameters: an update itself takes no memory."""
        ...

    def moving(self, parameter: torch.Tensor) -> State:
        """Returns what is where the parameter is, and has to move with it."""
        ...

    def fetch_ahead(self) -> None:
        """Starts to bring to the card what an update needs first, where it is not there."""
        ...

    def update(
        self,
        gradients: Mapping[torch.Tensor, torch.Tensor],
        values: StepValues,
        then: OptimizerState | None = None,
    ) -> None:
        """Queues a step of the parameters that have gradients; `then`: whose update is next."""
        ...


class Resident:
    """Kept on the parameters' own devices.

    `away`: parameters only wait where they are; what is kept takes no memory until they are brought elsewhere.
    """

    def __init__(self, rule: Rule, parameters: Sequence[torch.Tensor], away: bool) -> None:
        self._rule = rule
        self._state = {one: rule.zeros(one) for one in parameters}
        if not away:  # there from the start: a step's update needs no more memory
            self._state = {one: _written_out(kept, one.device) for one, kept in self._state.items()}

    @property
    def state(self) -> Mapping[torch.Tensor, State]:
        """What is kept, by parameter."""
        return self._state

    def claim(self, homes: Sequence[torch.device]) -> None:
        """Nothing: it moves with the parameters."""

    def prepare(self, homes: Sequence[torch.device]) -> None:
        """Nothing: it moves with the parameters."""

    def moving(self, parameter: torch.Tensor) -> State:
        """Returns all that is kept of the parameter."""
        return self._state[parameter]

    def fetch_ahead(self) -> None:
        """Nothing: it is there."""

    def update(
        self,
        gradients: Mapping[torch.Tensor, torch.Tensor],
        values: StepValues,
        then: OptimizerState | None = None,
    ) -> None:
        """Queues a step of the parameters that have gradients."""
        states = [self._state[parameter] for parameter in gradients]
        self._rule.update(list(gradients), list(gradients.values()), states, values)
        if then is not None:
            then.fetch_ahead()


def _written_out(state: State, device: torch.device) -> State:
    return {name: torch.zeros(zeros.shape, dtype=zeros.dtype, device=device) for name, zeros in state.items()}
