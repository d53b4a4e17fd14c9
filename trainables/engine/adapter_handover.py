"""Hands finished adapters over to the study, while the host continues to train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from search_spaces.trial_config import TrialConfig
from trainables.engine.release import drop_frames
from trainables.packed.adapter import LoraAdapter
from trainables.packed.adapter_files import peft_files, peft_tensors
from trainables.protocol import ADAPTER_UNWRITTEN

KeepAdapter = Callable[[str, dict[str, bytes]], None]

HANDOVER_TIMEOUT_SECONDS = 600.0
TRIES = 2  # a busy keeper may have time for the second


class HandoverError(Exception):
    """An adapter's files could not be kept; the message says why."""


class AdapterHandover:
    """Copies an adapter's weights on the calling thread, where no step changes them; all else on a thread of its own.

    One at a time, so that host memory holds one copy: begin another only while it is not `busy`.
    """

    def __init__(self, keep: KeepAdapter | None, base_model_path: str, revision: str) -> None:
        """`keep` is given a trial's id and its adapter's files; None where a study keeps no adapters."""
        self._keep = keep
        self._base_model = (base_model_path, revision)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="adapter-handover")
        self._last: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether an adapter is being handed over."""
        return self._last is not None and not self._last.done()

    def begin(self, trial_id: str, adapter: LoraAdapter) -> Future[None]:
        """Starts handing an adapter over; it may change or go afterwards."""
        if self._keep is None:
            nothing: Future[None] = Future()
            nothing.set_result(None)
            return nothing
        self._last = self._thread.submit(self._send, self._keep, trial_id, peft_tensors(adapter), adapter.config)
        return self._last

    def end(self, handover: Future[None]) -> None:
        """Waits until the files are kept. Raises HandoverError where they cannot be."""
        try:
            handover.result(HANDOVER_TIMEOUT_SECONDS)
        except Exception as error:  # MemoryError too: it is of host memory, which smaller passes would not spare
            # A full disk, mostly: the trial is trained, and ends once there is room.
            unwritten = isinstance(error, OSError) and not isinstance(error, TimeoutError)
            what = ADAPTER_UNWRITTEN if unwritten else "the adapter could not be kept"
            raise HandoverError(f"{what}: {type(error).__name__}: {error}") from error

    def drain(self) -> None:
        """Waits until no handover is under way, and its copies are gone; `end` raises if it failed."""
        if self._last is None:
            return
        error = self._last.exception(HANDOVER_TIMEOUT_SECONDS)
        if error is not None:
            drop_frames(error)  # which hold the copies until then

    def _send(self, keep: KeepAdapter, trial_id: str, tensors: Mapping[str, torch.Tensor], config: TrialConfig) -> None:
        files = peft_files(tensors, config, *self._base_model)
        for left in reversed(range(TRIES)):
            try:
                keep(trial_id, files)
                break
            except Exception:
                if not left:
                    raise
