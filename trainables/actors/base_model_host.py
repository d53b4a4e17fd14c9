"""Holds one base model in a process of its own, and trains all adapters resident on it."""

from __future__ import annotations

import os
import queue
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import ray

from trainables.actors.allocator import use_expandable_segments
from trainables.actors.host_loading import HostSettings, import_ahead, make_engine
from trainables.actors.node_notice import NodeNotice
from trainables.protocol import JoinRequest, News, NotResidentError
from trainables.timeline import Stage, host_process, timeline

WATCH_SECONDS = 1.0  # between looks at whether the trials still live
STATUS_SECONDS = 0.5  # between two messages to the keeper
STAGES_SECONDS = 2.0  # between two that tell it where the time went
COMMAND_TIMEOUT_SECONDS = 120.0


class HostLoadError(Exception):
    """The base model could not be loaded: no adapter can join."""


class BaseModelHost:
    """One base model on one device. Its own thread trains; the actor's threads only carry messages to it.

    Every wait has a time-out, so that a trial that polls hears from it however long a step takes.
    """

    def __init__(self, settings: HostSettings, keeper: Any) -> None:
        os.environ.update(settings.environment)
        timeline.begin(host_process(settings.name))
        self._settings = settings
        self._keeper = keeper
        self._commands: queue.SimpleQueue[tuple[Callable[[], Any], Future]] = queue.SimpleQueue()
        self._news = threading.Condition()
        self._engine: Any = None
        self._load_error: str | None = None
        self._watched: dict[str, _Watched] = {}  # by trial id
        self._wanted = threading.Event()
        if not settings.waits:
            self._wanted.set()
        self._last_watch = self._last_status = self._last_stages = 0.0
        self._told_changes = 0
        self._notice = NodeNotice(watch_cloud=settings.device == "cuda")
        threading.Thread(target=self._live, name="training", daemon=True).start()

    # -- messages -----------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"BaseModelHost({self._settings.name})"  # in the dashboard and in Ray's logs

    def join(self, request: JoinRequest, actor_id: str) -> None:
        """Takes a trial's adapter in and watches its actor. Raises HostLoadError, NotResidentError."""

        def take_in() -> None:
            if self._load_error:
                raise HostLoadError(self._load_error)
            self._engine.join(request)
            self._watched[request.trial_id] = _Watched(actor_id, request.incarnation)

        self._wanted.set()
        self._on_training_thread(take_in)

    def advance(self, trial_id: str, incarnation: int, seen: int, timeout_seconds: float) -> News:
        """Waits for news from report number `seen` on; asking with all seen lets a reported adapter continue."""
        resident = self._resident(trial_id, incarnation)
        if seen >= len(resident.reports):
            resident.awaiting_since = None
        deadline = time.monotonic() + timeout_seconds
        with self._news:
            while len(resident.reports) <= seen and not resident.outcome and time.monotonic() < deadline:
                self._news.wait(min(0.25, timeout_seconds))
        return replace(self._resident(trial_id, incarnation).news(seen), leaving=self._notice.leaving)

    def state(self, trial_id: str, incarnation: int) -> bytes:
        """The adapter's checkpoint, taken between two steps. Raises NotResidentError."""
        return self._on_training_thread(lambda: self._resident(trial_id, incarnation).state())

    def states(self) -> dict[str, bytes]:
        """The checkpoints of all residents that have not ended, by trial id; where a study is stopped."""
        return self._on_training_thread(self._states) if self._engine else {}

    def stages(self) -> tuple[Stage, ...]:
        """Where this process' time went so far."""
        return timeline.stages()

    def leave(self, trial_id: str, incarnation: int) -> None:
        """Removes the trial's adapter."""
        self._on_training_thread(lambda: self._evict(trial_id, incarnation))

    def _resident(self, trial_id: str, incarnation: int) -> Any:
        if self._engine is None:
            raise NotResidentError(f"{trial_id} has not joined this host")
        return self._engine.resident(trial_id, incarnation)

    def _states(self) -> dict[str, bytes]:
        at_work = [resident for resident in self._engine.residents.values() if resident.outcome is None]
        return {resident.trial_id: resident.state() for resident in at_work}

    def _on_training_thread(self, function: Callable[[], Any]) -> Any:
        result: Future = Future()
        self._commands.put((function, result))
        return result.result(COMMAND_TIMEOUT_SECONDS if self._engine else None)

    # -- the training thread ------------------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            self._load()
            self._train_for_ever()
        except BaseException:
            traceback.print_exc()
            # Trials would poll a host without this thread for ever; a dead process they notice, and join another host.
            os._exit(1)

    def _load(self) -> None:
        try:
            if self._settings.device == "cuda":
                use_expandable_segments()
            with timeline.stage("imports"):
                import_ahead()
            if not self._wanted.is_set():
                with timeline.stage("waiting for a trial"):
                    self._wanted.wait()
            keep = self._keep_adapter if self._settings.keep_adapters else None
            self._engine = make_engine(self._settings, keep, self._between, self._note_alone)
        except Exception as error:
            self._load_error = f"{type(error).__name__}: {error}"
            traceback.print_exc()

    def _train_for_ever(self) -> None:
        while True:
            self._between()
            if self._engine is None or not self._engine.work():
                self._obey(wait_seconds=0.1)
            with self._news:
                self._news.notify_all()

    def _between(self) -> None:
        """Serves messages between two passes: commands, dead trials, the statuses for the keeper."""
        self._obey(wait_seconds=0.0)
        now = time.monotonic()
        if now - self._last_watch > WATCH_SECONDS:
            self._last_watch = now
            self._evict_orphans()
        if self._engine and now - self._last_status > STATUS_SECONDS:
            self._last_status = now
            word = (self._engine.statuses(), self._settings.name, self._engine.seconds(), device_values(self._settings))
            self._keeper.note_statuses.remote(*word)
        if now - self._last_stages > STAGES_SECONDS and self._told_changes != timeline.changes:
            self._last_stages, self._told_changes = now, timeline.changes
            self._keeper.note_stages.remote(timeline.stages())

    def _obey(self, wait_seconds: float) -> None:
        try:
            while True:
                function, result = self._commands.get(timeout=wait_seconds) if wait_seconds else self._next_command()
                wait_seconds = 0.0
                try:
                    result.set_result(function())
                except Exception as error:
                    result.set_exception(error)
        except queue.Empty:
            return

    def _next_command(self) -> tuple[Callable[[], Any], Future]:
        return self._commands.get_nowait()

    def _evict_orphans(self) -> None:
        for trial_id, watched in list(self._watched.items()):
            if watched.is_dead():
                self._evict(trial_id, watched.incarnation)

    def _evict(self, trial_id: str, incarnation: int) -> None:
        if self._engine:
            self._engine.leave(trial_id, incarnation)
        watched = self._watched.get(trial_id)
        if watched and watched.incarnation <= incarnation:
            del self._watched[trial_id]

    def _keep_adapter(self, trial_id: str, files: dict[str, bytes]) -> None:
        ray.get(self._keeper.keep_adapter.remote(trial_id, files), timeout=COMMAND_TIMEOUT_SECONDS)

    def _note_alone(self, trial_id: str, begins: bool) -> None:
        # Waited for: should the process die in the work that follows, the keeper must know whose it was.
        ray.get(self._keeper.note_alone.remote(trial_id, begins), timeout=COMMAND_TIMEOUT_SECONDS)


class _Watched:
    """A trial's actor, looked up now and then in Ray's own table of actors.

    By its name and not by its handle, since to receive that a process must import the actor's class, and Ray Tune with
    it: a second of a host's time while its trials wait for it.
    """

    def __init__(self, actor_id: str, incarnation: int) -> None:
        self._actor_id = actor_id
        self.incarnation = incarnation

    def is_dead(self) -> bool:
        return actor_state(self._actor_id) == "DEAD"


def actor_state(actor_id: str) -> str | None:
    """Returns what Ray says of an actor, `ALIVE` or `DEAD` among others; None where it says nothing just now."""
    return ray._private.state.actors(actor_id).get("State")


def device_values(settings: HostSettings) -> dict[str, float]:
    """Memory allocated on the host's cards and the power they draw, for the charts; empty on a CPU."""
    if settings.device != "cuda":
        return {}
    import torch

    from trainables.measure.nvml import device_power_watts, summed

    cards = [torch.device("cuda", number) for number in range(settings.cards)]
    power = summed(device_power_watts, cards)
    values = {"memory_allocated_bytes": float(sum(map(torch.cuda.memory_allocated, cards)))}
    return values if power is None else {**values, "power_watts": power}
