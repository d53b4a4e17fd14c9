"""The cluster's nodes: which there are and may come, our code on them, and the folder that they share."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.cluster.job_package import code_package, untracked_text, write_package
from study.cluster.ray_address import LOCAL
from study.errors import ConfigError, PlanError
from study.output import say
from study.plan.shares import Node
from study.strict_yaml import read_yaml

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it in a submitted job, whose code is on every node already
AUTOSCALER_FILE = Path("~/ray_bootstrap_config.yaml")  # `ray up` leaves it on the head, where the driver is
NODE_SECONDS = 60.0


def runtime_env(address: str, environment: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Returns what `ray.init` is given so that every node has our code: nothing where it has it already.

    The code is packed into `folder`, which `ray.init` has read when it returns.
    """
    if address == LOCAL or JOB_VARIABLE in environment:
        return {}
    package = code_package()
    if package.untracked:
        say(untracked_text(package))
    return {"working_dir": str(write_package(package, folder / "code.zip"))}


def cluster_nodes() -> tuple[Node, ...]:
    """Returns the machines of the cluster that live, and those that its autoscaler may still start."""
    return tuple(Node(each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in cluster_resources())


def uses_cards(gpu: str, nodes: Sequence[Node]) -> bool:
    """Whether a study whose file says so of `hardware.gpu` runs on cards: for `auto`, if a node has one."""
    return any(node.gpus for node in nodes) if gpu == "auto" else gpu != "cpu"


def cluster_resources() -> list[Mapping[str, float]]:
    """Returns what each of `cluster_nodes` offers, in Ray's words; of one still to start its cores and cards alone."""
    living = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return with_promised(living, autoscaler_config(AUTOSCALER_FILE.expanduser()))


def with_promised(living: Sequence[Mapping[str, float]], config: Mapping[str, Any]) -> list[Mapping[str, float]]:
    """Returns nodes' resources, and those of the nodes that an autoscaler of this cluster file may add to them."""
    nodes = [Node(each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in living]
    return [*living, *({"CPU": node.cpus, "GPU": node.gpus} for node in promised_nodes(config, nodes))]


def autoscaler_config(file: Path) -> Mapping[str, Any]:
    """Returns the cluster file that `ray up` left on this machine; empty where it left none."""
    try:
        found = read_yaml(file) if file.is_file() else {}
    except ConfigError:  # it is Ray's, not the user's: without it, what lives is all that counts
        found = {}
    return found if isinstance(found, dict) else {}


def promised_nodes(config: Mapping[str, Any], living: Sequence[Node]) -> tuple[Node, ...]:
    """Returns the nodes that an autoscaler of this cluster file may add to those that live."""
    kinds = config.get("available_node_types") or {}
    there = Counter((node.cpus, node.gpus) for node in living)
    room = max(0, int(config.get("max_workers", 0)) - max(0, len(living) - 1))
    promised: list[Node] = []
    for name, kind in kinds.items():
        if name == config.get("head_node_type"):
            continue
        resources = kind.get("resources") or {}
        node = Node(float(resources.get("CPU", 0)), float(resources.get("GPU", 0)))
        missing = int(kind.get("max_workers", config.get("max_workers", 0))) - there[(node.cpus, node.gpus)]
        promised += [node] * max(0, min(missing, room - len(promised)))
    return tuple(promised)


def check_shared(directory: Path) -> None:
    """Raises PlanError where a node does not see the study's directory: its trials' checkpoints would be lost."""
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if not others:
        return
    mark = directory / f".seen-{uuid.uuid4().hex}"
    mark.touch()
    try:
        blind = [node["NodeManagerAddress"] for node in others if not _sees(node["NodeID"], str(mark))]
    finally:
        mark.unlink(missing_ok=True)
    if blind:
        raise PlanError(unshared_text(directory, blind))


def unshared_text(directory: Path, blind: Sequence[str]) -> str:
    """Returns the message for nodes that do not see the study's directory."""
    nodes = f"node {blind[0]} does not" if len(blind) == 1 else f"nodes {', '.join(blind)} do not"
    return (
        f"on a cluster, storage must be a folder that every node sees; {nodes} see {directory}. "
        "Mount a shared folder (NFS, EFS, Filestore) at the same path on all nodes and give it as storage, or give "
        "s3://BUCKET/PREFIX or gs://BUCKET/PREFIX."
    )


def _sees(node_id: str, file: str) -> bool:
    looks = ray.remote(_is_file).options(
        num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
    )
    try:
        return bool(ray.get(looks.remote(file), timeout=NODE_SECONDS))
    except Exception:  # the node has ended, or never responds: it will hold no trial either
        return True


def _is_file(file: str) -> bool:
    folder = Path(file).parent
    # Listed, and not asked for by name: a listing makes an NFS client look anew.
    return folder.is_dir() and Path(file).name in os.listdir(folder)
