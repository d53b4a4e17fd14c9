"""Measures what each footprint costs on a host, once and alone, for all trials that share it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from search_spaces.footprint import Footprint
from search_spaces.trial_config import TrialConfig
from trainables.dataset.rows import Row
from trainables.engine.bench import Bench
from trainables.engine.kept_costs.exchange import CostExchange
from trainables.engine.kept_costs.files import KeptCost
from trainables.engine.parking import parked
from trainables.engine.pass_budget import PassBudget
from trainables.engine.release import empty_caches, release
from trainables.engine.residents import Resident
from trainables.measure.generation import generated_tokens_per_second
from trainables.measure.pass_cost import measure_pass_cost
from trainables.measure.training_cost import (
    TYPICAL_MICRO_BATCHES,
    TrainingCost,
    measure_training_cost,
    measuring_plan,
)
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel
from trainables.packed.passes import PassCost
from trainables.timeline import timeline

SPEED_TOKENS = {"cpu": 4, "cuda": 16}  # generated to take the decoding speed

SLOT_SECONDS = 10.0  # after which the others are moved back, where they are at work: their trials wait for news
AT_WORK = ("training", "evaluating", "finishing")
PASS_COST_SECONDS = 3.0  # that the largest pass may take whose time is measured
STREAMED_ROWS = 4  # of the longest, that this pass has at least where layers are streamed

NewMember = Callable[[TrialConfig, Any], TrainingMember]


class MeasuredCosts:
    """The costs known so far; new ones are measured with all other members' tensors moved off the device."""

    def __init__(
        self, bench: Bench, model: PackedModel, budget: PassBudget, new_member: NewMember, study_directory: str = ""
    ) -> None:
        """Where there is a `study_directory` to name, costs are kept for later studies, and those of earlier ones taken
        over."""
        self._bench = bench
        self._model = model
        self._budget = budget
        self._new_member = new_member
        self._known: dict[Footprint, TrainingCost] = {}
        self._pass_cost: PassCost | None = None
        kind = bench.base.device.type
        self._prompt, self._new_tokens = _median_prompt(bench.dataset.eval.rows), SPEED_TOKENS[kind]
        micro_batch_size = bench.settings.training.micro_batch_size
        self._plan = measuring_plan(bench.dataset.train.rows, micro_batch_size, TYPICAL_MICRO_BATCHES[kind])
        self._exchange = CostExchange(bench, model, self._plan, self._prompt, self._new_tokens, study_directory)

    def has(self, config: TrialConfig) -> bool:
        """Whether the cost of a configuration's footprint is known: measured before, here or by an earlier study."""
        footprint = Footprint.of(config)
        if footprint not in self._known and (kept := self._exchange.take(footprint)):
            self._learn(footprint, kept)
        return footprint in self._known

    def known(self, config: TrialConfig) -> TrainingCost:
        """The cost of a configuration whose footprint is known."""
        return self._known[Footprint.of(config)]

    def measure(
        self, first: Resident, residents: Callable[[], Iterable[Resident]], between: Callable[[], None]
    ) -> None:
        """Measures the first's footprint, and in the same slot those of all `residents` that are not known yet.

        The slot ends early where trials in training have waited for `SLOT_SECONDS`: nobody else is kept waiting by it.
        `between` is called between two footprints; who joins in it is moved aside too. A suspect's is measured by
        itself. Raises torch.OutOfMemoryError where the first does not fit, ParkingError where the others cannot be
        moved off; what fails after the first is left for a slot of its own.
        """
        started = time.monotonic()
        with parked([one.member for one in residents()]) as aside:  # who has ended too: it holds memory until it leaves
            empty_caches()  # or the fragments of earlier packs are in what is measured
            self._note(first.config)
            try:
                while not first.suspect and (another := self._unknown(residents())) is not None:
                    if any(one.stage in AT_WORK for one in residents()) and time.monotonic() - started >= SLOT_SECONDS:
                        break
                    between()
                    aside.add([one.member for one in residents()])
                    self._note(another)
            except Exception as error:
                release(error)

    def _unknown(self, residents: Iterable[Resident]) -> TrialConfig | None:
        """The configuration that is measured next in a slot; None where all are known."""
        waiting = (one.config for one in residents if one.stage == "measuring" and not one.suspect)
        return next(
            (one for one in waiting if not self.has(one) and Footprint.of(one) not in self._bench.ran_out), None
        )

    def _learn(self, footprint: Footprint, kept: KeptCost) -> None:
        """Takes in what was measured, here or by an earlier study."""
        self._known[footprint] = kept.cost
        if self._bench.generated_tokens_per_second is None:
            self._bench.generated_tokens_per_second = kept.base_generated_tokens_per_second
        if kept.pass_tokens:
            self._budget.learn(kept.pass_bytes, kept.pass_tokens)
        if kept.pass_cost and self._budget.wants_pass_cost:
            self._learn_pass_cost(kept.pass_cost)

    def _learn_pass_cost(self, cost: PassCost | None) -> None:
        self._pass_cost = cost
        self._budget.learn_pass_cost(cost)
        self._model.run_tokens = cost.run_tokens if cost else 0

    def _note(self, config: TrialConfig) -> None:
        footprint = Footprint.of(config)
        with timeline.stage("footprint"):
            kept = self._measure(config)
        self._learn(footprint, kept)
        if self._budget.wants_pass_cost:
            self._learn_pass_cost(self._measured_pass_cost(config, kept.cost.seconds_per_token))
        self._exchange.give(footprint, replace(kept, pass_cost=self._pass_cost))

    def _measure(self, config: TrialConfig) -> KeptCost:
        model, rows = self._model, self._bench.dataset.train.rows
        base_speed = self._bench.generated_tokens_per_second
        if base_speed is None:
            base_speed = generated_tokens_per_second(model, None, self._prompt, self._new_tokens)
        before = {card: torch.cuda.memory_allocated(card) for card in model.devices if card.type == "cuda"}
        scratch = self._new_member(config, self._plan)
        cost = measure_training_cost(model, scratch, rows, self._prompt, self._new_tokens)
        if not before:
            return KeptCost(cost, base_speed, 0, 0, None)
        batch = [rows[number] for number in self._plan[-1][-1]]
        tokens = len(batch) * max(len(row.tokens) for row in batch)
        peaks = zip(cost.card_peak_bytes, before.items(), strict=True)
        of_rows = [peak - there - _adapter_bytes(scratch, card) for peak, (card, there) in peaks]
        return KeptCost(cost, base_speed, max(0, *of_rows), tokens, None)

    def _measured_pass_cost(self, config: TrialConfig, seconds_per_token: float) -> PassCost | None:
        """What a pass costs here; None where that cannot be measured, for which no trial must fail."""
        rows = self._bench.dataset.train.rows
        longest = max(len(row.tokens) for row in rows) if self._model.streams.layers else 0
        most = min(self._budget.limits().max_tokens // 2, timed_tokens(seconds_per_token, longest))
        try:
            return measure_pass_cost(self._model, self._new_member, config, rows, most)
        except (RuntimeError, MemoryError) as error:  # CUDA's errors too
            release(error)
            return None


def timed_tokens(seconds_per_token: float, streamed_longest: int = 0) -> int:
    """Returns how many tokens the largest pass may have whose time is measured.

    `streamed_longest` are the longest row's, where layers are streamed. `seconds_per_token` were taken on short passes,
    which then take as long as the copies do, whatever their tokens: by these alone no pass would be short enough, and
    a pass would be taken to cost as little as that of a resident base.
    """
    return max(round(PASS_COST_SECONDS / seconds_per_token), STREAMED_ROWS * streamed_longest)


def _median_prompt(rows: Sequence[Row]) -> Sequence[int]:
    """The prompt of the evaluation split's median length."""
    row = sorted(rows, key=lambda row: row.target_start)[len(rows) // 2]
    return row.tokens[: row.target_start]


def _adapter_bytes(member: TrainingMember, card: torch.device) -> int:
    """Weights, gradients, and the optimizer's state that stays there, which an adapter has on one card."""
    own = [parameter for parameter in member.adapter.parameters() if parameter.device == card]
    kept = [value.nbytes for parameter in own for value in member.optimizer.moving(parameter).values()]
    return 2 * sum(parameter.nbytes for parameter in own) + sum(kept)
