"""The actor that makes, watches and ends the hosts; owned by the driver, it dies with the driver (RAY)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.actors.base_model_host import BaseModelHost
from trainables.actors.host_loading import HostSettings
from trainables.actors.ray_gauges import RayGauges
from trainables.gauges import PredictedMemory, host_samples, predicted_host_bytes, trial_samples
from trainables.protocol import ResidentStatus
from trainables.settings import TrialSettings

KEEPER_NAME = "lora-frontier-keeper"
MEMORY_MARGIN = 1.5  # times what a phase takes must be free for its host to be made ahead
HOST_THREADS = 128  # messages a host can hold at once: each resident's `advance` waits in one


@dataclass(frozen=True)
class NextHost:
    """The hosts of the phase to come, one for each device in use, and what must hold before they are made."""

    precision: str
    after_trials: int
    needed_bytes: int  # of the machine's memory, by each


class HostKeeper:
    """Knows every device's host, numbers the trials' incarnations, and writes adapters into the study directory."""

    def __init__(self, settings: TrialSettings, study_directory: str, keep_adapters: bool, cpu_threads: int) -> None:
        self._settings = settings
        self._adapters = Path(study_directory) / "adapters"
        self._keep_adapters = keep_adapters
        self._cpu_threads = cpu_threads
        self._hosts: dict[tuple[str, tuple[str, ...]], tuple[str, Any]] = {}  # device -> precision, handle
        self._hosts_made = 0
        self._phase = 0
        self._prepared: dict[tuple[str, tuple[str, ...], str], tuple[int, Any]] = {}  # device, precision -> phase, host
        self._made_ahead: list[Any] = []  # hosts that were made before a trial asked for them
        self._next: NextHost | None = None
        self._incarnations: dict[str, int] = {}
        self._statuses: dict[str, tuple[str, ResidentStatus]] = {}  # by trial: the host that spoke of it last, its word
        self._known: set[str] = set()  # all trials that any host has spoken of
        self._seconds: dict[str, dict[str, float]] = {}  # by host
        self._alone: set[str] = set()  # suspects at work
        self._deaths_alone: dict[str, int] = {}
        self._predicted: dict[str, PredictedMemory] = {}  # by trial
        self._gauges = RayGauges(Path(study_directory).name)

    def __repr__(self) -> str:
        return "HostKeeper"  # in the dashboard and in Ray's logs

    def host_for(self, node_id: str, gpu_ids: Sequence[str], precision: str, dead: Any = None) -> Any:
        """The host of a device, made where there is none; `dead` is one that a trial has seen die."""
        device = (node_id, tuple(gpu_ids))
        known_precision, host = self._hosts.get(device, (None, None))
        if host is not None and (known_precision != precision or host == dead):
            ray.kill(host)
            host = None
        if host is None:
            _, host = self._prepared.pop((*device, precision), (self._phase, None))
            host = host or self._make_host(node_id, gpu_ids, precision)
            self._hosts[device] = (precision, host)
        return host

    def prepare(self, node_id: str, gpu_ids: Sequence[str], precision: str, waits: bool) -> None:
        """Has a host made for a phase that begins, so that it starts beside the trials; `waits`: until one joins."""
        if (node_id, tuple(gpu_ids)) not in self._hosts:
            self._make_ahead(self._phase, node_id, gpu_ids, precision, waits)

    def loads_anew(self, host: Any) -> bool:
        """Whether a host that could not load its base has a successor: one that was made ahead has, since what was
        there before it may still have been in memory then."""
        if host in self._made_ahead:
            self._made_ahead.remove(host)
            ray.kill(host)
            self._hosts = {device: one for device, one in self._hosts.items() if one[1] != host}
        return all(living != host for _, living in self._hosts.values())

    def prepare_next(self, precision: str, after_trials: int, needed_bytes: int) -> None:
        """Has hosts made for the phase to come, once so many trials have joined and none is being measured.

        On a CPU they load at once; on cards they wait, since two bases there could be too much for what trains. Not
        where the memory of a machine like the keeper's could not hold them too, `needed_bytes` each.
        """
        self._next = NextHost(precision, after_trials, needed_bytes)

    def next_incarnation(self, trial_id: str) -> int:
        """The number of a trial's next life: higher than all before."""
        self._incarnations[trial_id] = self._incarnations.get(trial_id, -1) + 1
        return self._incarnations[trial_id]

    def note_alone(self, trial_id: str, begins: bool) -> None:
        """A host says that a suspect begins, or has done, a unit of work alone."""
        (self._alone.add if begins else self._alone.discard)(trial_id)

    def deaths_alone(self, trial_id: str) -> int:
        """How often a host has died while this trial was the only one at work; asked after each death of its host."""
        if trial_id in self._alone:
            self._alone.discard(trial_id)
            self._deaths_alone[trial_id] = self._deaths_alone.get(trial_id, 0) + 1
        return self._deaths_alone.get(trial_id, 0)

    def note_statuses(
        self, statuses: Sequence[ResidentStatus], host: str, seconds: dict[str, float], device: dict[str, float]
    ) -> None:
        """A host's word on its residents, on where its time goes, and on its card; it goes to the charts as well."""
        for trial_id in [name for name, (speaker, _) in self._statuses.items() if speaker == host]:
            del self._statuses[trial_id]  # else thousands that have ended would be told of again and again
        self._statuses |= {status.trial_id: (host, status) for status in statuses}
        self._known |= {status.trial_id for status in statuses}
        self._make_next()
        self._seconds[host] = seconds
        values = {**device, **predicted_host_bytes(statuses, self._predicted)}
        self._gauges.set([*trial_samples(statuses), *host_samples(host, statuses, seconds, values)])

    def note_predicted(self, trial_id: str, predicted: PredictedMemory) -> None:
        """What a trial that begins is predicted to take, for the charts."""
        self._predicted[trial_id] = predicted

    def host_seconds(self) -> dict[str, dict[str, float]]:
        """Where every host's time has gone, by the host's name: seconds by kind of work."""
        return self._seconds

    def statuses(self) -> dict[str, ResidentStatus]:
        """The last word on every trial that is on a host, or was when its host died, for the live table."""
        return {trial_id: status for trial_id, (_, status) in self._statuses.items()}

    def hosts(self) -> list[Any]:
        """The living hosts' handles."""
        return [host for _, host in self._hosts.values()]

    def keep_adapter(self, trial_id: str, files: dict[str, bytes]) -> None:
        """Writes a finished adapter to `adapters/TRIAL/`."""
        folder = self._adapters / trial_id
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            partial = folder / f"{name}.partial"
            partial.write_bytes(content)
            partial.replace(folder / name)

    def end_hosts(self) -> None:
        """Ends all hosts: between phases, so that the next base finds the device empty, and at the end."""
        for _, host in self._hosts.values():
            ray.kill(host)
        self._hosts.clear()
        self._end_prepared()
        self._phase += 1
        self._next = None

    def _make_next(self) -> None:
        """Costs are measured alone, so nothing loads while a trial is measured or still to come."""
        following, stages = self._next, {status.stage for _, status in self._statuses.values()}
        if following is None or len(self._known) < following.after_trials or {"loading", "measuring"} & stages:
            return
        self._next = None
        self._end_prepared()
        on_a_node = max(Counter(node_id for node_id, _ in self._hosts).values(), default=0)
        if psutil.virtual_memory().available > MEMORY_MARGIN * following.needed_bytes * on_a_node:
            for node_id, gpu_ids in self._hosts:
                self._make_ahead(self._phase + 1, node_id, gpu_ids, following.precision, waits=bool(gpu_ids))

    def _make_ahead(self, phase: int, node_id: str, gpu_ids: Sequence[str], precision: str, waits: bool) -> None:
        host = self._make_host(node_id, gpu_ids, precision, waits)
        self._prepared[node_id, tuple(gpu_ids), precision] = (phase, host)
        self._made_ahead.append(host)

    def _end_prepared(self) -> None:
        """Ends hosts of this phase that nobody has asked for."""
        for key, (phase, host) in list(self._prepared.items()):
            if phase <= self._phase:
                ray.kill(host)
                del self._prepared[key]

    def _make_host(self, node_id: str, gpu_ids: Sequence[str], precision: str, waits: bool = False) -> Any:
        device = "cuda" if gpu_ids else "cpu"
        self._hosts_made += 1
        name = f"{self._hosts_made} {precision} on {'card ' + ','.join(gpu_ids) if gpu_ids else 'cpu'} of {node_id[:8]}"
        cards = max(1, len(gpu_ids))
        settings = HostSettings(
            self._settings, name, precision, device, self._cpu_threads, cards, self._keep_adapters, waits
        )  # fmt: skip
        options: dict[str, Any] = {
            "name": f"host {name}",  # in the dashboard; unlike any other, since hosts are numbered
            "num_cpus": 0,
            "num_gpus": 0,
            "max_concurrency": HOST_THREADS,
            "max_restarts": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
        }
        if gpu_ids:  # the trials hold the card's shares; their host takes none of its own
            environment = {"CUDA_VISIBLE_DEVICES": ",".join(gpu_ids), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
            options["runtime_env"] = {"env_vars": environment}
        else:  # threads that spin while they wait are many times slower where the cores are shared
            options["runtime_env"] = {"env_vars": {"OMP_WAIT_POLICY": "PASSIVE"}}
        keeper = ray.get_runtime_context().current_actor
        return ray.remote(BaseModelHost).options(**options).remote(settings, keeper)
