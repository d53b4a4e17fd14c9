"""Hosts made before a trial asks for them, where it is known which device they will be on.

Starting a host and loading a base model take as long as starting the trials, and neither uses all cores: done together,
a study waits for the longer one only. The first hosts load at once; on cards only where Ray is the study's own, and so
names them as this process does. Those of the next phase do so on a CPU; on cards they start, import their libraries and
wait, since the device is still full.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from study.cluster.ray_address import LOCAL, ray_address
from study.plan.forecast import Forecast
from study.plan.phases import StudyPhase

WAITING_BYTES = 2**30  # of a process that has imported torch and transformers: 0.4 GiB with torch's CPU build, measured


def prepare_hosts(keeper: Any, phases: Sequence[StudyPhase], number: int, forecast: Forecast | None) -> None:
    """Has the hosts of phase `number` made now where they are known, and those of the next one once all trials before
    it are in training."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0)]
    own, following = phases[number], next(iter(phases[number + 1 : number + 2]), None)
    before = sum(one.phase.trials for one in phases[: number + 1])
    if on_cards(own):
        if number == 0 and len(nodes) == 1 and own.phase.cards == 1:
            _prepare_cards(keeper, nodes[0], own)
        if following and on_cards(following) and following.phase.cards == own.phase.cards:
            keeper.prepare_next.remote(following.phase.precision, before, WAITING_BYTES)
    elif len(nodes) == 1 and not (following and on_cards(following)):
        keeper.host_for.remote(nodes[0]["NodeID"], (), own.phase.precision)
        if following and forecast:
            needed_bytes = forecast.largest_bytes(following.phase.precision)
            keeper.prepare_next.remote(following.phase.precision, before, needed_bytes)


def _prepare_cards(keeper: Any, node: Mapping[str, Any], own: StudyPhase) -> None:
    count = min(cards_in_use(own), int(node["Resources"].get("GPU", 0)))
    waits = ray_address() != LOCAL
    for name in card_names(count, os.environ.get("CUDA_VISIBLE_DEVICES")):
        keeper.prepare.remote(node["NodeID"], (name,), own.phase.precision, waits)


def on_cards(phase: StudyPhase) -> bool:
    """Whether a phase's trials ask for cards."""
    return "GPU" in phase.phase.resources


def cards_in_use(phase: StudyPhase) -> int:
    """On how many cards its trials are: one is filled after the other."""
    return math.ceil(min(phase.phase.places, phase.phase.trials) / phase.phase.per_device)


def card_names(count: int, visible: str | None) -> list[str]:
    """How Ray calls the cards of this machine: by number, or as `CUDA_VISIBLE_DEVICES` names them.

    A name that no trial is given costs a host that ends with the phase.
    """
    return (visible.split(",") if visible else [str(number) for number in range(count)])[:count]
