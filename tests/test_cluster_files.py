"""The cluster files: valid to Ray, and as safe as study/guide/security.md says."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.places import ROOT

CLOUDS = ("cluster.yaml", "cluster-gcp.yaml")


def cluster(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return values


def commands(values: dict[str, Any], kind: str) -> str:
    return "\n".join(values[kind])


@pytest.mark.parametrize("name", CLOUDS)
def test_ray_takes_the_file(name: str) -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    prepared = util.prepare_config(copy.deepcopy(cluster(name)))
    util.validate_config(prepared)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0
    with pytest.raises(Exception, match="idle"):
        util.validate_config({**prepared, "idle_timeout_minutes": "ten"})


@pytest.mark.parametrize("name", CLOUDS)
def test_the_head_has_no_card_and_workers_are_t4s_on_spot_capacity(name: str) -> None:
    values = cluster(name)
    head, worker = (values["available_node_types"][kind] for kind in ("head", "t4"))
    assert values["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0}
    assert worker["resources"]["GPU"] == 1
    assert (worker["min_workers"], worker["max_workers"]) == (0, values["max_workers"])
    config = worker["node_config"]
    spot = config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    assert spot or {"preemptible": True} in config["scheduling"]
    assert "g4dn" in config.get("InstanceType", "") or "t4" in config["guestAccelerators"][0]["acceleratorType"]


@pytest.mark.parametrize("name", CLOUDS)
def test_the_job_port_is_on_loopback_and_wants_a_token(name: str) -> None:
    values = cluster(name)
    start = commands(values, "head_start_ray_commands")
    assert "--dashboard-host=127.0.0.1" in start
    assert "0.0.0.0" not in yaml.safe_dump(values)
    assert "RAY_AUTH_MODE=token" in commands(values, "initialization_commands")
    assert values["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in commands(values, "initialization_commands")


@pytest.mark.parametrize("name", CLOUDS)
def test_the_dependencies_come_from_the_checkout_and_the_caches_are_shared(name: str) -> None:
    values = cluster(name)
    own = {target: source for target, source in values["file_mounts"].items() if not source.startswith("~")}
    assert all((ROOT / source).is_file() for source in own.values())
    assert {Path(target).parent.as_posix() for target in own} == {"/home/ubuntu/lora-frontier"}
    for kind in ("head_setup_commands", "worker_setup_commands"):
        assert "-e '/home/ubuntu/lora-frontier[cluster]'" in commands(values, kind)
    for cache in ("HF_HOME", "LORA_FRONTIER_CACHE", "PIP_CACHE_DIR"):
        assert f"{cache}=/shared/" in commands(values, "initialization_commands")
    assert "mount -t nfs4" in commands(values, "worker_setup_commands")


def test_the_two_clouds_differ_only_in_what_is_the_clouds() -> None:
    aws, gcp = (cluster(name) for name in CLOUDS)
    for own in ("provider", "available_node_types", "head_setup_commands"):
        aws.pop(own), gcp.pop(own)
    assert aws == gcp
