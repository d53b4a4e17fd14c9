"""Finds the Ray cluster that a study runs on, and refuses an address where none responds."""

from __future__ import annotations

import os
from pathlib import Path

from study.cluster.ray_place import ray_folder
from study.cluster.ray_probe import host_and_port, why_no_cluster
from study.errors import ConfigError

LOCAL, AUTO = "local", "auto"
VARIABLE = "RAY_ADDRESS"
HEAD_PORT = 6379
_responded: set[str] = set()  # in this process: a cluster that is lost later is Ray's to notice


def ray_address() -> str:
    """Returns `RAY_ADDRESS`, else the address of a cluster of this machine that responds, else `local`.

    Ray sets `RAY_ADDRESS` in a submitted job; `local` is a Ray of the study's own. Left to itself, Ray waits for
    minutes for a cluster that exists no more. Raises ConfigError where `RAY_ADDRESS` names none that responds.
    """
    asked = os.environ.get(VARIABLE, "").strip()
    noted = noted_cluster(ray_folder(os.environ) / "ray_current_cluster")
    if asked == AUTO:
        if noted is None or not responds(noted):
            _refuse(asked, "must find a cluster of this machine; none responds", "Start one (`ray start --head`)")
        return str(noted)
    if asked and asked != LOCAL:
        _check(asked)
        return asked
    return noted if not asked and noted and responds(noted) else LOCAL


def noted_cluster(file: Path) -> str | None:
    """Returns the address that `ray start` notes on its machine, HOST:PORT; None where there is none."""
    try:
        address = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    except (OSError, ValueError):
        return None
    return address if host_and_port(address) else None


def responds(address: str) -> bool:
    """Whether a Ray cluster's head responds there."""
    return not why_no_cluster(address)


def _check(address: str) -> None:
    """Raises ConfigError where an address is not one of a cluster's head that responds."""
    if address in _responded:
        return
    scheme, _, place = address.partition("://")
    if place:
        host = place.rpartition("@")[2].partition("/")[0].rpartition(":")[0] or "HOST"
        rule = f"must be HOST:PORT of a cluster's head; {scheme}:// addresses do not run a study"
        job = f"submit it from here: RAY_API_SERVER_ADDRESS=http://{host}:8265 python -m study submit STUDY.yaml"
        _refuse(address, rule, f"On a node of the cluster, set {VARIABLE}={host}:{HEAD_PORT}; or {job}; or")
    if host_and_port(address) is None:
        _refuse(address, "must be HOST:PORT of a cluster's head", f"Write for example 10.0.0.5:{HEAD_PORT};")
    reason = why_no_cluster(address)
    if reason:
        rule = f"must be the address of a Ray cluster's head that responds; {reason}"
        _refuse(address, rule, f"Check host and port ({HEAD_PORT} where nobody chose another)")
    _responded.add(address)


def _refuse(address: str, rule: str, remedy: str) -> None:
    raise ConfigError.of(VARIABLE, "", address, rule, f"{remedy} unset it to run on this machine alone.")
