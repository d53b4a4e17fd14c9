"""Hosts made before a trial asks for them, where it is known which device they will be on: a CPU study on one machine.

Loading a base model takes as long as starting the trials, and neither uses all cores: done together, a study waits for
the longer one only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from study.forecast import Forecast
from study.phases import StudyPhase


def prepare_hosts(keeper: Any, phases: Sequence[StudyPhase], number: int, forecast: Forecast | None) -> None:
    """Has the host of phase `number` made now, and that of the next one once all trials before it are in training."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0)]
    if len(nodes) != 1 or any("GPU" in one.phase.resources for one in phases[number : number + 2]):
        return
    keeper.host_for.remote(nodes[0], (), phases[number].phase.precision)
    following = phases[number + 1 : number + 2]
    if following and forecast:
        precision, before = following[0].phase.precision, sum(one.phase.trials for one in phases[: number + 1])
        keeper.prepare_next.remote(nodes[0], precision, before, forecast.largest_bytes(precision))
