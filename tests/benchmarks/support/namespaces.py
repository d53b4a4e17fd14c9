"""Places the nodes of a local cluster on loopback, or each in a network namespace (which needs root)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress

HEAD, WORKER = 0, 1


class Loopback:
    """All nodes share this machine's loopback; a node is lost when its processes are killed."""

    addresses = ("127.0.0.1", "127.0.0.1")

    def inside(self, side: int, command: Sequence[str]) -> list[str]:
        """The command as it is run on that side."""
        return [*command]

    def connect(self) -> None:
        """Nothing is to be done."""

    def cut(self) -> bool:
        """Whether the worker's side was cut off; here it cannot be."""
        return False

    def end(self) -> None:
        """Nothing is to be done."""


class Namespaces:
    """Head and worker each in a network namespace, joined by one cable; a node is lost when the cable is cut.

    Its processes then live on for a while, and nobody hears of them: as when a machine's network fails.
    """

    addresses = ("10.231.7.1", "10.231.7.2")

    def __init__(self) -> None:
        self._names = tuple(f"lora-frontier-{os.getpid()}-{side}" for side in (HEAD, WORKER))
        self._cables = tuple(f"lf{os.getpid()}-{side}" for side in (HEAD, WORKER))
        try:
            self._build()
        except RuntimeError:
            self.end()
            raise

    def _build(self) -> None:
        for name in self._names:
            _ip("netns", "add", name)
        _ip("link", "add", self._cables[HEAD], "type", "veth", "peer", "name", self._cables[WORKER])
        for name, cable, address in zip(self._names, self._cables, self.addresses, strict=True):
            _ip("link", "set", cable, "netns", name)
            _ip("-n", name, "address", "add", f"{address}/24", "dev", cable)
            for device in ("lo", cable):
                _ip("-n", name, "link", "set", device, "up")

    def inside(self, side: int, command: Sequence[str]) -> list[str]:
        """The command as it is run on that side."""
        return ["ip", "netns", "exec", self._names[side], *command]

    def connect(self) -> None:
        """Joins the sides again."""
        _ip("-n", self._names[WORKER], "link", "set", self._cables[WORKER], "up")

    def cut(self) -> bool:
        """Cuts the worker's side off; returns whether it has."""
        _ip("-n", self._names[WORKER], "link", "set", self._cables[WORKER], "down")
        return True

    def end(self) -> None:
        """Takes the namespaces away, and the cable with them."""
        for name in self._names:
            with suppress(RuntimeError):  # it was never made
                _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        said = f"`ip {' '.join(arguments)}` said: {done.stdout.strip()}"
        raise RuntimeError(f"network namespaces need Linux, root and the command `ip`; {said}")
