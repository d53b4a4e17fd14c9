"""Compiles a model's kernels on a thread beside the loading of its weights."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainables.base_model.files import read_config
from trainables.base_model.load import compute_dtype
from trainables.base_model.location import locate
from trainables.kernels.ahead import ModelWidths, compile_ahead
from trainables.kernels.elementwise import kernels_on
from trainables.packed.fused.kernel_widths import kernel_widths
from trainables.settings import BaseModelSettings
from trainables.timeline import timeline

log = logging.getLogger(__name__)


@contextmanager
def kernels_beside(settings: BaseModelSettings, precision: str, device: torch.device) -> Iterator[None]:
    """Compiles the base model's kernels while the block runs; they are there when it ends. Nothing on a CPU.

    Whatever fails here is left for a kernel's first use to meet.
    """
    thread = None
    if device.type == "cuda":
        try:
            widths, dtype = kernel_widths(read_config(locate(settings))), compute_dtype(precision, device)
            thread = threading.Thread(target=_compile, args=(widths, dtype, device), name="kernels", daemon=True)
            thread.start()
        except Exception as error:
            log.debug("Kernels are compiled at their first use: %r", error)
    try:
        yield
    finally:
        if thread is not None:
            thread.join()


def _compile(widths: ModelWidths, dtype: torch.dtype, device: torch.device) -> None:
    try:
        with timeline.stage("kernels"):
            if kernels_on(device):
                compile_ahead(widths, dtype, device)
                torch.cuda.synchronize(device)
    except Exception as error:
        log.debug("Kernels are compiled at their first use: %r", error)
