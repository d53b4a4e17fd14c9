"""Takes over costs that earlier studies have measured of the same footprint, and keeps those of this study.

On cards alone. On a CPU the process itself is measured, and what else it holds moves its peak by more than ranks do: by
18 MiB with four trials more on it, where ranks 8 and 16 of a model of 135 M parameters are 9 MiB apart (measured).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from search_spaces.footprint import Footprint
from trainables.dataset.batches import Plan
from trainables.engine.bench import Bench
from trainables.engine.kept_costs.basis import cost_basis
from trainables.engine.kept_costs.files import KeptCost, keep_cost, kept_cost
from trainables.measure.training_cost import CostOrigin
from trainables.packed.packed_model import PackedModel

EXCHANGED_ON = ("cuda",)


class CostExchange:
    """One host's door to the costs that are kept on its node: what was looked for is not looked for again.

    What ran out of memory is not exchanged: it is a verdict on a moment, and no measurement.
    """

    def __init__(
        self, bench: Bench, model: PackedModel, plan: Plan, prompt: Sequence[int], new_tokens: int, directory: str
    ) -> None:
        """`plan`, `prompt` and `new_tokens` are what a footprint is measured on, `directory` the study's own.

        Nothing is exchanged where that is empty.
        """
        self._bench = bench
        self._measured_on = (model, plan, prompt, new_tokens)
        self._directory = directory if bench.base.device.type in EXCHANGED_ON else ""
        self._missing: set[Footprint] = set()

    def take(self, footprint: Footprint) -> KeptCost | None:
        """Returns what an earlier study measured; None where none has, or all is to be measured anew."""
        anew = self._bench.settings.hardware.measured_costs == "anew"
        if anew or not self._directory or footprint in self._missing:
            return None
        found = kept_cost(self._basis, footprint)
        if found is None:
            self._missing.add(footprint)
        elif found.cost.origin and found.cost.origin.directory == self._directory:  # measured before it was interrupted
            return replace(found, cost=replace(found.cost, origin=None))
        return found

    def give(self, footprint: Footprint, kept: KeptCost) -> None:
        """Keeps what was measured here, in place of what an earlier study has."""
        if self._directory:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            keep_cost(self._basis, footprint, kept, CostOrigin(self._directory, now))

    @cached_property
    def _basis(self) -> dict[str, Any]:
        return cost_basis(self._bench, *self._measured_on)
