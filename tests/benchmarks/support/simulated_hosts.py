"""Hosts of a simulated cluster, which sleep for as long as cards would train.

One actor stands for the hosts of all cards, since a process each is more than one machine holds. Everything else is the
study's own: driver, searcher, keeper, trial processes, records.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from search_spaces.trial_config import TrialConfig
from trainables.actors.base_model_host import STATUS_SECONDS
from trainables.actors.host_keeper import HostKeeper
from trainables.actors.host_pool import Device, Host
from trainables.protocol import JoinRequest, News, NotResidentError, Outcome, Report, ResidentStatus

TIMES_FILE = "simulated_hosts.json"  # of the study directory: when which card was at work
TRIAL_SECONDS = "LORA_FRONTIER_SIMULATED_TRIAL_SECONDS"  # the environment variable; the keeper's process reads it
EVALUATIONS, TOTAL_STEPS, FINISHING = 4, 112, 0.1  # as pubmedqa_t4.yaml's trials; `FINISHING` is a part of the time
SPREAD = 0.2  # trials take so much more or less than the mean, by chance
EVAL_ROWS, TEST_ROWS, SAMPLE_CHARACTERS = 50, 500, 600  # what a record holds, and a result carries
STATE_BYTES = 2**16


@dataclass
class SimulatedResident:
    """A trial on a card: it trains piece by piece, reports after each, and then waits until its trial asks again."""

    request: JoinRequest
    device: Device
    seconds: float  # of the whole trial
    reports: list[Report] = field(default_factory=list)
    outcome: Outcome | None = None
    piece_began: float = 0.0
    waits: bool = False

    @property
    def piece_seconds(self) -> float:
        """How long the piece that is under way takes."""
        done = len(self.reports)
        return self.seconds * (FINISHING if done == EVALUATIONS else (1 - FINISHING) / EVALUATIONS)

    def end_piece(self) -> None:
        """Reports, or gives the outcome after the last piece, which does not wait for the trial."""
        self.piece_began += self.piece_seconds
        if len(self.reports) == EVALUATIONS:
            self.outcome = made_up_outcome(self.request.config, "complete", EVALUATIONS)
            return
        self.reports.append(made_up_report(self.request.config, len(self.reports) + 1))
        self.waits = len(self.reports) < EVALUATIONS

    def status(self) -> ResidentStatus:
        """The trial's line in the live table."""
        last = self.reports[-1] if self.reports else None
        stage: Any = "ended" if self.outcome else "finishing" if len(self.reports) == EVALUATIONS else "training"
        quality = last.perplexity if last else None
        step = last.step if last else 0
        return ResidentStatus(self.request.trial_id, stage, step, TOTAL_STEPS, 2.0, quality, 1, 400.0, 6 * 2**30)


class SimulatedHosts:
    """The hosts of all cards in one process; each method is a BaseModelHost's, with the card before its arguments."""

    def __init__(self, keeper: Any, trial_seconds: float) -> None:
        self._keeper = keeper
        self._trial_seconds = trial_seconds
        self._residents: dict[str, SimulatedResident] = {}
        self._pieces: list[tuple[str, float, float, str]] = []  # card, begin and end of what was trained, trial
        self._devices: set[Device] = set()
        self._actors: set[str] = set()  # trial processes that have come
        self._telling: Any = None

    async def join(self, device: Device, request: JoinRequest, trial: Any) -> None:
        """Takes a trial in; it begins to train at once."""
        self._telling = self._telling or asyncio.get_running_loop().create_task(self._tell())
        spread = random.Random(request.trial_id).uniform(1 - SPREAD, 1 + SPREAD)
        resident = SimulatedResident(request, device, self._trial_seconds * spread, piece_began=time.time())
        self._residents[request.trial_id] = resident
        self._devices.add(device)
        self._actors.add(str(trial))

    async def advance(self, trial_id: str, incarnation: int, seen: int, timeout_seconds: float) -> News:
        """Waits for news, as a host does; asking with all seen lets the trial train on."""
        resident = self._resident(trial_id)
        if resident.waits and seen >= len(resident.reports):
            resident.waits, resident.piece_began = False, time.time()
        deadline = time.time() + timeout_seconds
        while len(resident.reports) <= seen and not resident.outcome and time.time() < deadline:
            due = resident.piece_began + resident.piece_seconds
            await asyncio.sleep(max(0.0, min(due, deadline) - time.time()))
            if time.time() >= due:
                self._pieces.append((card_name(resident.device), resident.piece_began, due, trial_id))
                resident.end_piece()
        return News(tuple(resident.reports[seen:]), resident.outcome, resident.status().step)

    async def state(self, trial_id: str, incarnation: int) -> bytes:
        """A checkpoint's bytes; nothing ever continues from them."""
        self._resident(trial_id)
        return bytes(STATE_BYTES)

    async def leave(self, trial_id: str, incarnation: int) -> None:
        """Removes a trial."""
        self._residents.pop(trial_id, None)

    async def told(self) -> dict[str, Any]:
        """When which card was at work for which trial, and how many processes these had."""
        return {"pieces": self._pieces, "actors": len(self._actors)}

    def _resident(self, trial_id: str) -> SimulatedResident:
        if trial_id not in self._residents:
            raise NotResidentError(f"{trial_id} has not joined")
        return self._residents[trial_id]

    async def _tell(self) -> None:
        """Sends every host's statuses to the keeper, as often as a real host does."""
        while True:
            began = time.time()
            by_device: dict[Device, list[ResidentStatus]] = {device: [] for device in self._devices}
            for resident in self._residents.values():
                by_device[resident.device].append(resident.status())
            for device, statuses in by_device.items():
                seconds = {"training": 1.0, "waiting": 0.0, "all": 1.0}
                self._keeper.note_statuses.remote(statuses, card_name(device), seconds, {})
            await asyncio.sleep(max(0.0, began + STATUS_SECONDS - time.time()))


@dataclass(frozen=True)
class SimulatedHost:
    """What a trial holds of its card's host: the shared actor, each call with the card."""

    hosts: Any
    device: Device

    def __getattr__(self, name: str) -> Any:
        if name not in ("join", "advance", "state", "leave"):
            raise AttributeError(name)
        method = getattr(self.hosts, name)
        return _Bound(method, (self.device,) if name == "join" else ())


@dataclass(frozen=True)
class _Bound:
    method: Any
    before: tuple[Any, ...]

    def remote(self, *arguments: Any) -> Any:
        return self.method.remote(*self.before, *arguments)


class SimulatedKeeper(HostKeeper):
    """The study's keeper, whose hosts are simulated."""

    _simulated: Any = None

    def hosts(self) -> list[Any]:
        """None of them has a state to keep."""
        return []

    def end_hosts(self) -> None:
        """Writes what the cards have done, and ends them."""
        if self._simulated is not None:
            told = ray.get(self._simulated.told.remote())
            (Path(self._adapters).parent / TIMES_FILE).write_text(json.dumps(told), encoding="utf-8")
            ray.kill(self._simulated)
        super().end_hosts()
        self._handles.clear()  # those made ahead were this same actor; they are started again where they are asked for
        self._simulated = None

    def _start(self, host: Host) -> SimulatedHost:
        if self._simulated is None:
            keeper = ray.get_runtime_context().current_actor
            hosts = ray.remote(SimulatedHosts).options(num_cpus=0, name="simulated hosts", max_concurrency=10_000)
            self._simulated = hosts.remote(keeper, float(os.environ[TRIAL_SECONDS]))
        return SimulatedHost(self._simulated, host.device)

    def _end(self, handle: SimulatedHost) -> None:
        """The actor stands for other cards' hosts too."""


def card_name(device: Device) -> str:
    """A card among all of them."""
    return f"{device[0][:8]} {','.join(device[1])}"


def made_up_report(config: TrialConfig, number: int) -> Report:
    """The `number`-th report of a trial, with what it would leave if it were stopped there."""
    point = made_up_point(config, number)
    so_far = made_up_outcome(config, "stopped", number)
    return Report(
        point["step"], point["train_loss"], point["perplexity"], point["learning_rate"], memory_bytes(config),
        TOTAL_STEPS, so_far,
    )  # fmt: skip


def made_up_point(config: TrialConfig, number: int) -> dict[str, Any]:
    """A point of a curve that falls, to lower ends for greater ranks and for learning rates near 3e-4."""
    end = 8.0 - 0.2 * config.rank**0.5 + 0.5 * abs(config.learning_rate / 3e-4 - 1)
    step = TOTAL_STEPS * number // EVALUATIONS
    values = {"step": step, "train_loss": 2.0 / number, "perplexity": end + 4.0 / number}
    return {**values, "learning_rate": config.learning_rate}


def memory_bytes(config: TrialConfig) -> int:
    """Grows with the rank and with the modules."""
    return 6 * 2**30 + config.rank * len(config.target_modules) * 4 * 2**20


def made_up_outcome(config: TrialConfig, status: Any, number: int) -> Outcome:
    """An outcome as large as a real one."""
    rows = {"nats": [1.0 + row / 7 for row in range(EVAL_ROWS)], "tokens": [7] * EVAL_ROWS}
    test = {"nats": [1.0 + row / 7 for row in range(TEST_ROWS)], "tokens": [7] * TEST_ROWS}
    curve = tuple(made_up_point(config, one) for one in range(1, number + 1))
    quality = curve[-1]["perplexity"]
    measurements = {
        "perplexity": quality, "base_perplexity": 14.0, "accuracy": 0.5, "test_perplexity": quality,
        "peak_memory_bytes": memory_bytes(config), "train_tokens_per_second": 400.0, "train_steps": curve[-1]["step"],
    }  # fmt: skip
    text = "x" * SAMPLE_CHARACTERS
    complete = status == "complete"
    return Outcome(
        status,
        measurements=measurements,
        curve=curve,
        samples=({"prompt": text, "base": text, "tuned": text},) * 3 if complete else (),
        eval_rows=rows if complete else None,
        test_rows=test if complete else None,
        device={"name": "Tesla T4, simulated"},
        comparable={"quality": "simulated", "cost": "simulated"},
    )
