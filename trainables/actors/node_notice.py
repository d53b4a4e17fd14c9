"""Notices that this node is about to be taken away: Ray drains it, or its cloud says so.

A spot machine is told half a minute (Google Cloud) or two minutes (AWS) before its end, and Ray is then told to drain
it. Once Ray drains a node it places nothing there any more, and trials that work there write checkpoints.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import ray

log = logging.getLogger(__name__)

NOTICE_SECONDS = 3.0  # between two looks
ASK_SECONDS = 2.0
VENDOR_FILE = Path("/sys/class/dmi/id/sys_vendor")  # of the machine, as its firmware tells it
AMAZON, GOOGLE = "Amazon EC2", "Google"
SECONDS_LEFT = {AMAZON: 120, GOOGLE: 30}  # from the notice to the end, at least
AMAZON_METADATA = "http://169.254.169.254/latest/"
GOOGLE_METADATA = "http://metadata.google.internal/computeMetadata/v1/"
PREEMPTION = 2  # DRAIN_NODE_REASON_PREEMPTION of Ray's autoscaler.proto: accepted also while the node is busy

Ask = Callable[[str, str, Mapping[str, str]], str | None]  # method, URL, headers -> body; None for no reply


class NodeNotice:
    """Checks every few seconds, in a thread of its own, whether this node is leaving."""

    def __init__(self, watch_cloud: bool) -> None:
        self.leaving = False
        self._cloud = cloud_here() if watch_cloud else None
        threading.Thread(target=self._live, name="node notice", daemon=True).start()

    def _live(self) -> None:
        node_id = ray.get_runtime_context().get_node_id()
        while not self.leaving:
            try:
                if self._cloud and taken_away(self._cloud, ask_metadata):
                    drain(node_id, SECONDS_LEFT[self._cloud])
                self.leaving = node_id in draining_nodes()
            except Exception as error:  # then the node may leave without notice, as any node may
                log.debug("Whether the node is leaving is not known: %s", error)
            time.sleep(NOTICE_SECONDS)


def cloud_here(file: Path = VENDOR_FILE) -> str | None:
    """The cloud that this machine belongs to, where it is one that gives notice; else None."""
    try:
        vendor = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return vendor if vendor in SECONDS_LEFT else None


def taken_away(cloud: str, ask: Ask) -> bool:
    """Whether the cloud has said that this machine will be taken away."""
    if cloud == GOOGLE:
        return ask("GET", f"{GOOGLE_METADATA}instance/preempted", {"Metadata-Flavor": "Google"}) == "TRUE"
    token = ask("PUT", f"{AMAZON_METADATA}api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    headers = {"X-aws-ec2-metadata-token": token} if token else {}
    notice = ask("GET", f"{AMAZON_METADATA}meta-data/spot/instance-action", headers)
    try:
        return notice is not None and json.loads(notice)["action"] in ("terminate", "stop", "hibernate")
    except (ValueError, KeyError, TypeError):
        return False


def ask_metadata(method: str, url: str, headers: Mapping[str, str]) -> str | None:
    """Asks the machine's metadata server, past any proxy; None where it does not reply, or has nothing there."""
    request = urllib.request.Request(url, method=method, headers=dict(headers))
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=ASK_SECONDS) as reply:
            return str(reply.read(4096).decode("utf-8"))
    except (urllib.error.URLError, OSError, ValueError):
        return None


def drain(node_id: str, seconds_left: int) -> None:
    """Has Ray place nothing on the node any more."""
    deadline_ms = time.time_ns() // 10**6 + 1000 * seconds_left
    client = ray._private.worker.global_worker.gcs_client
    client.drain_node(node_id, PREEMPTION, "the cloud takes the machine away", deadline_ms)


def draining_nodes() -> Mapping[str, int]:
    """The nodes that Ray drains, each with its deadline."""
    client = ray._private.worker.global_worker.gcs_client
    found: Mapping[str, int] = client.get_draining_nodes(timeout=ASK_SECONDS)
    return found
