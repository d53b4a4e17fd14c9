"""A finished adapter's way to the study: its files are made and sent while the host trains on. (no ray)"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from search_spaces.trial_config import TrialConfig
from trainables.adapter_files import as_files, peft_tensors
from trainables.lora_adapter import LoraAdapter

KeepAdapter = Callable[[str, dict[str, bytes]], None]

HANDOVER_TIMEOUT_SECONDS = 600.0


class AdapterHandover:
    """Copies an adapter's weights on the calling thread, since only there they hold still; all else on its own."""

    def __init__(self, keep: KeepAdapter | None, base_model_path: str, revision: str) -> None:
        """`keep` is given a trial's id and its adapter's files; None where a study keeps no adapters."""
        self._keep = keep
        self._base_model = (base_model_path, revision)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="adapter-handover")

    def begin(self, trial_id: str, adapter: LoraAdapter) -> Future[None]:
        """Starts handing an adapter over; it may change or go afterwards."""
        if self._keep is None:
            nothing: Future[None] = Future()
            nothing.set_result(None)
            return nothing
        return self._thread.submit(self._send, self._keep, trial_id, peft_tensors(adapter), adapter.config)

    def end(self, handover: Future[None] | None) -> None:
        """Waits until it is there. Raises what `keep` raised."""
        if handover is not None:
            handover.result(HANDOVER_TIMEOUT_SECONDS)

    def _send(self, keep: KeepAdapter, trial_id: str, tensors: Mapping[str, torch.Tensor], config: TrialConfig) -> None:
        keep(trial_id, as_files(tensors, config, *self._base_model))
