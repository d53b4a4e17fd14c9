"""A finished adapter's way to the study: its files are made and sent while the host trains on. (no ray)"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from search_spaces.trial_config import TrialConfig
from trainables.packed.adapter import LoraAdapter
from trainables.packed.adapter_files import peft_files, peft_tensors

KeepAdapter = Callable[[str, dict[str, bytes]], None]

HANDOVER_TIMEOUT_SECONDS = 600.0
TRIES = 2  # a keeper that is busy may answer the second time


class HandoverError(Exception):
    """An adapter's files could not be kept; the message says why."""


class AdapterHandover:
    """Copies an adapter's weights on the calling thread, since only there they hold still; all else on its own.

    One at a time: whoever begins another sees to it that none is on its way, so that host memory holds one copy.
    """

    def __init__(self, keep: KeepAdapter | None, base_model_path: str, revision: str) -> None:
        """`keep` is given a trial's id and its adapter's files; None where a study keeps no adapters."""
        self._keep = keep
        self._base_model = (base_model_path, revision)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="adapter-handover")
        self._last: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether an adapter is on its way."""
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
        """Waits until it is there. Raises HandoverError where it cannot be kept."""
        try:
            handover.result(HANDOVER_TIMEOUT_SECONDS)
        except Exception as error:  # also of memory: that of this machine, which smaller passes would not help
            raise HandoverError(f"the adapter could not be kept: {type(error).__name__}: {error}") from error

    def drain(self) -> None:
        """Waits until none is on its way; how it ended is for `end` to say."""
        if self._last is not None:
            self._last.exception(HANDOVER_TIMEOUT_SECONDS)

    def _send(self, keep: KeepAdapter, trial_id: str, tensors: Mapping[str, torch.Tensor], config: TrialConfig) -> None:
        files = peft_files(tensors, config, *self._base_model)
        for left in reversed(range(TRIES)):
            try:
                keep(trial_id, files)
                break
            except Exception:
                if not left:
                    raise
