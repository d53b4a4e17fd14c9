"""Hosts made before a trial asks for them, where it is known which devices they will be on: a study on one machine.

Loading a base model takes as long as starting the trials, and neither uses all cores: done together, a study waits for
the longer one only. The next phase's hosts load while the last trials of a phase train, if the devices hold both bases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from study.forecast import Forecast
from study.phases import StudyPhase


def prepare_hosts(keeper: Any, phases: Sequence[StudyPhase], number: int, forecast: Forecast | None) -> None:
    """Has the host of phase `number` made now on a CPU, and those of the next phase once this one's trials train."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    near = [one.phase for one in phases[number : number + 2]]
    on_cards = ["GPU" in one.resources for one in near]
    if len(nodes) != 1 or any(one.cards > 1 for one in near) or len(set(on_cards)) > 1:
        return
    if not on_cards[0]:
        keeper.host_for.remote(nodes[0], (), near[0].precision)
    if len(near) > 1 and forecast:
        precision, before = near[1].precision, sum(one.phase.trials for one in phases[: number + 1])
        keeper.prepare_next.remote(precision, before, forecast.largest_bytes(precision))
