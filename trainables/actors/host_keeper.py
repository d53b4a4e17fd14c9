"""Makes, watches and ends the hosts, and keeps what they say of their trials."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.actors.base_model_host import BaseModelHost
from trainables.actors.host_loading import HostSettings
from trainables.actors.host_pool import Change, Device, Host, HostPool, NextPhase
from trainables.actors.ray_gauges import RayGauges
from trainables.actors.trial_ledger import TrialLedger
from trainables.gauges import PredictedMemory, host_samples, trial_samples
from trainables.memory.offload import RESIDENT, Offload
from trainables.protocol import ADAPTERS_FOLDER, ResidentStatus
from trainables.settings import TrialSettings
from trainables.timeline import Stage, Timeline, host_process

KEEPER_NAME = "lora-frontier-keeper"
MOST_TRIALS_TOLD = 64  # whose own stages are kept
HOST_THREADS = 128  # messages a host can hold at once: each resident's `advance` waits in one


class HostKeeper:
    """The actor that trials and hosts call: a HostPool decides on hosts, a TrialLedger remembers trials.

    The driver owns it, and it owns the hosts: they die with the driver.
    """

    def __init__(self, settings: TrialSettings, study_directory: str, keep_adapters: bool, cpu_threads: int) -> None:
        self._settings = settings
        self._study_directory = study_directory
        self._adapters = Path(study_directory) / ADAPTERS_FOLDER
        self._keep_adapters = keep_adapters
        self._cpu_threads = cpu_threads
        self._pool = HostPool()
        self._ledger = TrialLedger()
        self._handles: dict[Host, Any] = {}  # of the hosts that were started and not ended
        self._timeline = Timeline()  # of hosts and trials
        self._asked: dict[str, float] = {}  # by a host's process: when it was to start, in seconds since the epoch
        self._trials_told = 0  # whose stages were taken in
        self._gauges = RayGauges(Path(study_directory).name)

    def __repr__(self) -> str:
        return "HostKeeper"  # in the dashboard and in Ray's logs

    # -- hosts --------------------------------------------------------------------------------------------------------

    def host_for(
        self, node_id: str, gpu_ids: Sequence[str], precision: str, offload: Offload = RESIDENT, dead: Any = None
    ) -> Any:
        """The host of a device, made where there is none; `dead` is one that a trial has seen die."""
        device = Device(node_id, tuple(gpu_ids))
        host, change = self._pool.take(device, precision, self._host_of(dead), offload)
        self._carry_out(change)
        return self._handle(host)

    def prepare(
        self, node_id: str, gpu_ids: Sequence[str], precision: str, waits: bool, offload: Offload = RESIDENT
    ) -> None:
        """Has a host made for a phase that begins, so that it starts beside the trials; `waits`: until one joins."""
        self._carry_out(self._pool.prepare(Device(node_id, tuple(gpu_ids)), precision, waits, offload))

    def loads_anew(self, handle: Any) -> bool:
        """Whether a host that could not load its base has a successor: one that was made ahead has."""
        host = self._host_of(handle)
        if host is not None:
            self._carry_out(self._pool.end_unloaded(host))
        return host not in self._pool.in_use

    def prepare_next(self, precision: str, after_trials: int, needed_bytes: int, offload: Offload = RESIDENT) -> None:
        """Has hosts made for the phase to come, once so many trials have joined and none is being measured.

        Not where the memory of a machine like the keeper's could not hold them too, `needed_bytes` each.
        """
        self._pool.plan_next(NextPhase(precision, after_trials, needed_bytes, offload))

    def hosts(self) -> list[Any]:
        """The handles of the hosts that were started and live; none is started for this."""
        return [self._handles[host] for host in self._pool.in_use if host in self._handles]

    def end_hosts(self) -> None:
        """Ends all hosts: between phases, so that the next base finds the device empty, and at the end."""
        self._carry_out(self._pool.end_phase())

    # -- trials -------------------------------------------------------------------------------------------------------

    def next_incarnation(self, trial_id: str) -> int:
        """The number of a trial's next life: higher than all before."""
        return self._ledger.next_incarnation(trial_id)

    def note_alone(self, trial_id: str, begins: bool) -> None:
        """A host says that a suspect begins, or has done, a unit of work alone."""
        self._ledger.note_alone(trial_id, begins)

    def deaths_alone(self, trial_id: str) -> int:
        """How often a host has died while this trial was the only one at work; asked after each death of its host."""
        return self._ledger.note_host_death(trial_id)

    def note_statuses(
        self, statuses: Sequence[ResidentStatus], host: str, seconds: dict[str, float], device: dict[str, float]
    ) -> None:
        """Takes in what a host says of its residents, its time and its card, and sets the charts' gauges."""
        self._ledger.note_statuses(host, statuses)
        if self._pool.next_is_due(self._ledger.trials, self._ledger.measuring):
            self._carry_out(self._pool.start_next(psutil.virtual_memory().available))
        values = {**device, **self._ledger.predicted_host_bytes(statuses)}
        self._gauges.set([*trial_samples(statuses), *host_samples(host, statuses, seconds, values)])

    def note_predicted(self, trial_id: str, predicted: PredictedMemory) -> None:
        """Takes in what a trial that begins is predicted to take, for the charts."""
        self._ledger.note_predicted(trial_id, predicted)

    def statuses(self) -> dict[str, ResidentStatus]:
        """The last status of every trial that is on a host, or was when its host died, for the live table."""
        return self._ledger.statuses()

    def note_stages(self, stages: Sequence[Stage]) -> None:
        """Takes in where a host's time went so far, in place of what it said before."""
        if not stages:  # of a host that is ended at once
            return
        first = min(stages, key=lambda one: one.began)
        asked = self._asked.get(first.process, first.began)
        self._timeline.take([Stage.whole(first.process, "starting", asked, first.began), *stages])

    def note_trial_stages(self, stages: Sequence[Stage]) -> None:
        """Takes in how a trial began; that of the first `MOST_TRIALS_TOLD`, so that a long study's file stays small."""
        if self._trials_told < MOST_TRIALS_TOLD:
            self._trials_told += 1
            self._timeline.take(stages)

    def stages(self) -> tuple[Stage, ...]:
        """Where the time of all hosts and trials went, as far as they have said."""
        return self._timeline.stages()

    def keep_adapter(self, trial_id: str, files: dict[str, bytes]) -> None:
        """Writes a finished adapter to `adapters/TRIAL/`."""
        write_files(self._adapters / trial_id, files)

    # -- Ray ----------------------------------------------------------------------------------------------------------

    def _carry_out(self, change: Change) -> None:
        for host in change.ended:
            if host in self._handles:
                self._end(self._handles.pop(host))
        for host in change.started:
            self._handle(host)

    def _handle(self, host: Host) -> Any:
        """The host's handle; it is started where it was not yet, also where that failed before."""
        if host not in self._handles:
            self._handles[host] = self._start(host)
        return self._handles[host]

    def _host_of(self, handle: Any) -> Host | None:
        return next((host for host, known in self._handles.items() if known == handle), None)

    def _start(self, host: Host) -> Any:
        cards = len(host.device.gpu_ids)
        settings = HostSettings(
            self._settings, host.name, host.precision, "cuda" if cards else "cpu", self._cpu_threads, max(1, cards),
            self._keep_adapters, host.waits, self._study_directory, host.offload, host_environment(host),
        )  # fmt: skip
        keeper = ray.get_runtime_context().current_actor
        self._asked[host_process(host.name)] = time.time()
        return ray.remote(BaseModelHost).options(**host_options(host)).remote(settings, keeper)

    def _end(self, handle: Any) -> None:
        ray.kill(handle)


def host_options(host: Host) -> dict[str, Any]:
    """What Ray is asked for a host's actor: its node, its cards, and no share of either."""
    return {
        "name": f"host {host.name}",  # in the dashboard; unlike any other, since hosts are numbered
        "num_cpus": 0,
        "num_gpus": 0,
        "max_concurrency": HOST_THREADS,
        "max_restarts": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(host.device.node_id, soft=False),
    }


def host_environment(host: Host) -> dict[str, str]:
    """What a host's process sets of its environment at its beginning, before any library reads it.

    Not a `runtime_env`: a process of Ray that has begun already could not be taken then.
    """
    if host.device.gpu_ids:  # the trials hold the card's shares; their host has none, and Ray shows it no card
        return {"CUDA_VISIBLE_DEVICES": ",".join(host.device.gpu_ids)}
    return {"OMP_WAIT_POLICY": "PASSIVE"}  # threads that spin as they wait are far slower where cores are shared


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes each file whole: who reads the folder meanwhile finds the old one or the new."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        partial = folder / f"{name}.partial"
        partial.write_bytes(content)
        partial.replace(folder / name)
