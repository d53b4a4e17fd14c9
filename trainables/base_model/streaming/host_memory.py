"""Takes host memory for layers' blocks, and lets a card read it by itself; says where it lacks what to do then."""

from __future__ import annotations

import torch

from trainables.base_model.checks.faults import BaseModelError
from trainables.host_pages.pages import GIB, HostPages, available_bytes


def reserve(nbytes: int) -> HostPages:
    """Returns host memory for a layer. Raises BaseModelError where there is no more."""
    try:
        return HostPages(nbytes)
    except MemoryError as error:
        raise _too_little(nbytes, str(error)) from error


def check_room(nbytes: int) -> None:
    """Raises BaseModelError where `nbytes` are more than host memory has left: the system would end the process."""
    left = available_bytes()
    if nbytes > left:
        raise _too_little(nbytes, f"{left / GIB:.2f} GiB are left")


def lock(pages: HostPages, card: torch.device) -> None:
    """Lets a card copy a layer by itself, until the layer is freed. Raises BaseModelError where that is refused."""
    try:
        pages.lock((card,))
    except MemoryError as error:
        raise _too_little(pages.block.nbytes, str(error)) from error


def _too_little(nbytes: int, found: str) -> BaseModelError:
    return BaseModelError(
        f"layers of the base model that wait in host memory must fit there; {nbytes / GIB:.2f} GiB do not: {found}. "
        "Free host memory, or raise the container's limit; or choose nf4, a smaller base model, a larger card, or "
        "hardware.base_in_host_memory: never."
    )
