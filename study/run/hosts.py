"""The driver's side of the hosts: starts their keeper, and hosts before a trial asks for them.

Starting a host and loading a base model take as long as starting the trials, and neither uses all cores: done together,
a study waits for the longer one only. The first hosts load at once; on cards only where Ray is the study's own, and so
names them as this process does. Those of the next phase load on a CPU; on cards they start, import their libraries and
wait, since the device is still full.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from study.cluster.nodes import cluster_nodes
from study.cluster.ray_address import LOCAL, ray_address
from study.plan.forecast import Forecast
from study.plan.phases import StudyPhase
from study.records.timeline.file import write_timeline
from study.run.study_run import StudyRun
from trainables.actors.host_keeper import KEEPER_NAME, HostKeeper
from trainables.limits import DEFAULT_PACK
from trainables.timeline import timeline

STATUS_SECONDS = 10  # that the keeper has for a question of the live table
END_SECONDS = 60  # that it has at the end of a phase
STAGES_SECONDS = 5  # that it and each host have to say where their time went
WAITING_BYTES = 2**30  # of a process that has imported torch and transformers: 0.4 GiB with torch's CPU build, measured


def start_keeper(study: StudyRun, most_on_a_device: int) -> Any:
    """Starts the keeper of the study's hosts, and returns its handle.

    Hosts take packs as large as the plan's, `most_on_a_device`, also where they pay beyond the usual bound.
    """
    trial, hardware = study.config.trial, study.config.trial.hardware
    if hardware.max_adapters_per_gpu is None and most_on_a_device > DEFAULT_PACK["cuda"]:
        trial = replace(trial, hardware=replace(hardware, max_adapters_per_gpu=most_on_a_device))
    keep_adapters = study.config.adapters != "none"
    threads = int(min((node.cpus for node in cluster_nodes() if node.cpus), default=1.0))
    options = {"name": KEEPER_NAME, "num_cpus": 0, "max_concurrency": 1}
    here = ray.get_runtime_context().get_node_id()  # adapters are written where the study's directory is
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
    keeper = ray.remote(HostKeeper).options(**options, scheduling_strategy=strategy)
    return keeper.remote(trial, str(study.directory), keep_adapters, threads)


def statuses(keeper: Any) -> Mapping[str, Any]:
    """Returns what every trial at work is doing, by its id."""
    found: Mapping[str, Any] = ray.get(keeper.statuses.remote(), timeout=STATUS_SECONDS)
    return found


def end_hosts(keeper: Any, directory: Path) -> None:
    """Ends a phase's hosts, and writes where the time of all processes went into the study's directory."""
    keep_timeline(keeper, directory)
    ray.get(keeper.end_hosts.remote(), timeout=END_SECONDS)


@contextmanager
def timeline_kept(keeper: Any, directory: Path) -> Iterator[None]:
    """Writes the study's time line also where what is done inside is interrupted, or breaks."""
    try:
        yield
    except BaseException:
        keep_timeline(keeper, directory)
        raise


def keep_timeline(keeper: Any, directory: Path) -> None:
    """Takes in where the time of hosts and trials went, as far as they reply, and writes the study's time line.

    It costs no trial: where the keeper or a host is dead, what they said before is written.
    """
    with suppress(ray.exceptions.RayError, TimeoutError):
        timeline.take(ray.get(keeper.stages.remote(), timeout=STAGES_SECONDS))
        for host in ray.get(keeper.hosts.remote(), timeout=STAGES_SECONDS):
            with suppress(ray.exceptions.RayError, TimeoutError):
                keeper.note_stages.remote(ray.get(host.stages.remote(), timeout=STAGES_SECONDS))
        timeline.take(ray.get(keeper.stages.remote(), timeout=STAGES_SECONDS))
    write_timeline(directory, timeline.stages())


def prepare_hosts(keeper: Any, phases: Sequence[StudyPhase], number: int, forecast: Forecast | None) -> None:
    """Has the keeper make the hosts of phase `number` now where they are known.

    Those of the next phase are made once all trials before it are in training.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0)]
    own, following = phases[number], next(iter(phases[number + 1 : number + 2]), None)
    before = sum(one.phase.trials for one in phases[: number + 1])
    if on_cards(own):
        if number == 0 and len(nodes) == 1 and own.phase.cards == 1:
            _prepare_cards(keeper, nodes[0], own)
        if following and on_cards(following) and following.phase.cards == own.phase.cards:
            _prepare_next(keeper, following, before, WAITING_BYTES)
    elif len(nodes) == 1 and not (following and on_cards(following)):
        keeper.host_for.remote(nodes[0]["NodeID"], (), own.phase.precision, own.phase.offload)
        if following and forecast:
            _prepare_next(keeper, following, before, forecast.largest_bytes(following.phase.precision))


def _prepare_next(keeper: Any, following: StudyPhase, after_trials: int, needed_bytes: int) -> None:
    phase = following.phase
    keeper.prepare_next.remote(phase.precision, after_trials, needed_bytes, phase.offload)


def _prepare_cards(keeper: Any, node: Mapping[str, Any], own: StudyPhase) -> None:
    count = min(cards_in_use(own), int(node["Resources"].get("GPU", 0)))
    waits = ray_address() != LOCAL
    for name in card_names(count, os.environ.get("CUDA_VISIBLE_DEVICES")):
        keeper.prepare.remote(node["NodeID"], (name,), own.phase.precision, waits, own.phase.offload)


def on_cards(phase: StudyPhase) -> bool:
    """Whether a phase's trials ask for cards."""
    return "GPU" in phase.phase.resources


def cards_in_use(phase: StudyPhase) -> int:
    """Returns on how many cards its trials are: one is filled after the other."""
    return math.ceil(min(phase.phase.places, phase.phase.trials) / phase.phase.per_device)


def card_names(count: int, visible: str | None) -> list[str]:
    """Returns what Ray calls the cards of this machine: their numbers, or the names in `CUDA_VISIBLE_DEVICES`.

    A name that no trial is given costs a host that ends with the phase.
    """
    return (visible.split(",") if visible else [str(number) for number in range(count)])[:count]
