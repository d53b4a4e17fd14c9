"""Brings adapters that wait off the device back to it, as soon as there is room."""

from __future__ import annotations

from functools import partial

from trainables.engine.bench import Bench
from trainables.engine.failures import end_failed, failure_of
from trainables.engine.parking import bring_back, training_bytes
from trainables.engine.pass_budget import PassBudget
from trainables.engine.residents import Resident


class WaitingRoom:
    """What is known of residents whose adapters found no room: how much must be free before they are tried again."""

    def __init__(self, bench: Bench, budget: PassBudget) -> None:
        self._bench = bench
        self._budget = budget
        self._wanted_bytes: dict[str, int] = {}  # by trial

    def is_back(self, resident: Resident) -> bool:
        """Whether the resident's adapter is on the device, where it is brought if there is room.

        Trying costs the allocator its cache, so that on a card it is tried only with more room than it failed with.
        """
        member, trial_id, free = resident.member, resident.trial_id, self._budget.free_bytes()
        if not member.away:
            return True
        if free is not None and free < self._wanted_bytes.get(trial_id, training_bytes(member)):
            return False
        failure = failure_of(partial(bring_back, member), [resident], self._bench)
        if failure is None:
            self._wanted_bytes.pop(trial_id, None)
            return True
        if not failure.out_of_memory:
            end_failed(resident, failure, self._bench)
        self._wanted_bytes[trial_id] = 0 if free is None else free + 1
        return False
