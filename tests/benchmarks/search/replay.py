"""Replays a study from recorded curves, with a number of places and a rule that stops trials."""

from __future__ import annotations

import heapq
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.pareto import hypervolume, non_dominated
from study.search.early_stopping import Halving

MARGIN = 1.1  # how far a reference lies beyond the worst value that it is taken from
SPEED_SPREAD = 0.1  # trials differ so much in speed, so that they do not come to rungs in lockstep


@dataclass(frozen=True)
class Curve:
    """One recorded training: its evaluations (optimizer step, perplexity), and its memory in bytes."""

    trial_id: str
    config: dict[str, Any]
    memory: float
    points: tuple[tuple[int, float], ...]
    complete: bool

    @property
    def final(self) -> tuple[float, float]:
        """(perplexity at the end, memory); the perplexity is infinite where training did not finish."""
        return (self.points[-1][1] if self.complete else math.inf, self.memory)


@dataclass(frozen=True)
class Table:
    """All curves of one recording."""

    name: str
    total_steps: int
    base_perplexity: float
    curves: tuple[Curve, ...]

    @property
    def front(self) -> frozenset[str]:
        """The trials on the front of full training."""
        mask = non_dominated([curve.final for curve in self.curves])
        return frozenset(curve.trial_id for curve, on in zip(self.curves, mask, strict=True) if on)

    @property
    def reference(self) -> tuple[float, float]:
        """The corner for hypervolumes that a study would give: no better than the base model, and all the memory."""
        return self.base_perplexity, MARGIN * max(curve.memory for curve in self.curves)

    @property
    def strict_reference(self) -> tuple[float, float]:
        """The corner just beyond the front's worst values, where every member of the front weighs."""
        members = [curve.final for curve in self.curves if curve.trial_id in self.front]
        return MARGIN * max(loss for loss, _ in members), MARGIN * max(memory for _, memory in members)

    def hypervolume_share(self, trials: Sequence[str], reference: tuple[float, float] | None = None) -> float:
        """The hypervolume of these trials, trained to the end, over that of all."""
        corner = reference or self.reference
        points = [curve.final for curve in self.curves if curve.trial_id in set(trials)]
        return hypervolume(points, corner) / hypervolume([curve.final for curve in self.curves], corner)


@dataclass(frozen=True)
class Replay:
    """The outcome of one replay: its cost as a share of full training, and how much of the front it found."""

    cost: float
    hypervolume: float  # share of full training's
    strict_hypervolume: float  # likewise, at the strict reference
    lost: int  # front members that were not trained to the end
    completed: int


def load_table(file: Path) -> Table:
    """Reads what record_curves wrote; curves of trainings that did not finish are kept as far as they go."""
    values = json.loads(file.read_text(encoding="utf-8"))
    total = values["about"]["total_steps"]
    curves = []
    for one in values["curves"]:
        points = tuple((step, math.inf if loss is None else float(loss)) for step, loss in one["curve"])
        complete = one["status"] == "complete" and bool(points) and points[-1][0] == total
        curves.append(Curve(one["trial_id"], one["config"], float(one["memory_bytes"]), points, complete))
    base = max(one["base_perplexity"] for one in values["curves"] if one["base_perplexity"] is not None)
    return Table(file.stem, total, base, tuple(curves))


def arrival_order(table: Table, seed: int, by_precision: bool = False, listed: bool = False) -> list[Curve]:
    """The curves shuffled; with `by_precision` one precision after another, as phases of a study run; `listed` by their
    learning rates, the least first, as a grid lists them."""
    order = list(table.curves)
    random.Random(f"order:{seed}").shuffle(order)
    if listed:
        order.sort(key=lambda curve: curve.config["learning_rate"])
    return sorted(order, key=lambda curve: curve.config["precision"]) if by_precision else order


def run_replay(table: Table, order: Sequence[Curve], halving: Halving | None, places: int, seed: int) -> Replay:
    """Trains the curves in their order, `places` at a time; a place that a stopped trial frees is taken at once.

    Without a halving everything is trained to the end.
    """
    generator = random.Random(f"speed:{seed}")
    speeds = {curve.trial_id: generator.uniform(1 - SPEED_SPREAD, 1 + SPEED_SPREAD) for curve in order}
    waiting = list(reversed(order))
    events: list[tuple[float, int, int, Curve]] = []  # when, arrival, number of the evaluation, whose
    completed: list[str] = []
    arrivals = spent = 0

    def next_event(now: float, arrival: int, number: int, curve: Curve) -> None:
        before = curve.points[number - 1][0] if number else 0
        steps = curve.points[number][0] - before
        heapq.heappush(events, (now + steps * speeds[curve.trial_id], arrival, number, curve))

    def fill(now: float) -> None:
        nonlocal arrivals
        while waiting and len(events) < places:
            curve = waiting.pop()
            if curve.points:
                next_event(now, arrivals, 0, curve)
                arrivals += 1

    fill(0.0)
    while events:
        now, arrival, number, curve = heapq.heappop(events)
        step, loss = curve.points[number]
        spent += step - (curve.points[number - 1][0] if number else 0)
        if number + 1 == len(curve.points):
            if curve.complete:
                completed.append(curve.trial_id)
            if halving:
                halving.on_result(curve.trial_id, step, loss, curve.memory, configuration_of(curve))
        elif halving is None or continues(halving, curve, step, loss):
            next_event(now, arrival, number + 1, curve)
        fill(now)
    return summary(table, completed, spent)


def continues(halving: Halving, curve: Curve, step: int, loss: float) -> bool:
    """The halving's verdict on one evaluation."""
    return halving.on_result(curve.trial_id, step, loss, curve.memory, configuration_of(curve)) == "continue"


def configuration_of(curve: Curve) -> str:
    """What the seeds of a configuration share."""
    return json.dumps({name: value for name, value in curve.config.items() if name != "seed"}, sort_keys=True)


def summary(table: Table, completed: Sequence[str], spent: float) -> Replay:
    """A replay in numbers; `spent` is in optimizer steps."""
    full = sum(curve.points[-1][0] for curve in table.curves if curve.points)
    shares = [table.hypervolume_share(completed, corner) for corner in (table.reference, table.strict_reference)]
    return Replay(spent / full, *shares, len(table.front - set(completed)), len(completed))


def random_at_cost(table: Table, order: Sequence[Curve], cost: float) -> Replay:
    """Random search at a cost: the first of the order, trained to the end, as many as it pays for (rounded up)."""
    budget = cost * sum(curve.points[-1][0] for curve in table.curves if curve.points)
    spent, completed = 0, []
    for curve in order:
        if spent >= budget or not curve.points:
            break
        spent += curve.points[-1][0]
        completed += [curve.trial_id] if curve.complete else []
    return summary(table, completed, spent)
